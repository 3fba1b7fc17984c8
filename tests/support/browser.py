"""A headless Chromium, driven over its debugging pipe with nothing but the standard library."""

import json
import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.waiting import PATIENCE_S

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page:
    """One page: commands of the DevTools protocol, and what it complained of."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self.out, self.back = to_browser, os.fdopen(from_browser, "rb", buffering=0)
        self.pending, self.number, self.session = b"", 0, ""
        self.complaints: list[str] = []
        self.events: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a command."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params} | ({"sessionId": self.session} if self.session else {})
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self.number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return dict(answer["result"])

    def receive(self) -> dict[str, Any]:
        """The next message, its complaint kept."""
        while b"\0" not in self.pending:
            if not select.select([self.back], [], [], PATIENCE_S)[0]:
                raise RuntimeError(f"chromium has said nothing for {PATIENCE_S} s")
            read = self.back.read(1 << 20)
            if not read:
                raise RuntimeError("chromium has ended")
            self.pending += read
        text, self.pending = self.pending.split(b"\0", 1)
        message: dict[str, Any] = json.loads(text)
        method, params = message.get("method", ""), message.get("params", {})
        if method:
            self.events.append(method)
        if method == "Runtime.exceptionThrown" or method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.complaints.append(json.dumps(params))
        if method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.complaints.append(params["entry"]["text"])
        if method == "Network.requestWillBeSent" and not params["request"]["url"].startswith(("file:", "data:", "blob:")):
            self.complaints.append(f"request to {params['request']['url']}")
        return message

    def open(self, path: Path, width: int, height: int = 900) -> None:
        """Loads a file at a window size and waits until it has drawn."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 700)
        self.events.clear()
        self.send("Page.navigate", url=path.as_uri())
        while "Page.loadEventFired" not in self.events:
            self.receive()

    def run(self, script: str) -> Any:
        """The value of an expression in the page, awaited when it is a promise."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def move_to(self, selector: str) -> None:
        """Puts the mouse on the middle of an element that is scrolled into sight."""
        self.run(f"document.querySelector({selector!r}).scrollIntoView({{block: 'center'}})")
        box = self.run(
            f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])(document.querySelector({selector!r}).getBoundingClientRect())"
        )
        for x in (box[0] - 3, box[0]):
            self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=box[1])


@contextmanager
def page(profile: Path) -> Iterator[Page]:
    """A page of a fresh Chromium whose profile lies in that folder."""
    assert CHROMIUM
    to_browser, ours = os.pipe(), os.pipe()
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--remote-debugging-pipe",
        f"--user-data-dir={profile}",
        "about:blank",
    ]
    # the protocol wants descriptors 3 (to read) and 4 (to write)
    shell = ["bash", "-c", f'exec 3<&{to_browser[0]} 4>&{ours[1]}; exec "$@"', "bash", *command]
    process = subprocess.Popen(shell, pass_fds=(to_browser[0], ours[1]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(to_browser[0])
    os.close(ours[1])
    try:
        yield Page(to_browser[1], ours[0])
    finally:
        process.terminate()
        process.wait()
        os.close(to_browser[1])
