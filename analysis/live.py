"""`python -m analysis runs/<grid> --live`: the report in a browser of this machine, made anew when records or metrics have changed.

The server listens on 127.0.0.1 alone. Other users of the machine can reach that too, so a page is found only under a word that is drawn at each
start. It answers to three addresses and reads no file because of an address. It writes nothing to the run folders.
"""

import gzip
import hashlib
import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hmac import compare_digest
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from secrets import token_urlsafe
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

from analysis.merge import AnalysisError, merge
from analysis.printing import number_of
from analysis.report import HERE, integrity, report, template
from analysis.rows import make_rows
from analysis.running import Points, StageCurves, stages_in_training
from jobs.experiment.output import printable
from jobs.experiment.run_folder import CELLS, PLAN, RECORD, RunFolder

ADDRESS = "127.0.0.1"
HOSTS = (ADDRESS, "localhost")  # that a browser here calls this machine: a page from elsewhere has another name, whatever it resolves to
LOOK_S = 2.0  # between two looks for changes
BUSY = 5  # making a report takes at most one part in so many of the time
CARDS = 12  # stages in training that are shown
WIDTH, HEIGHT = 240, 80  # of a curve, in its own units

Signature = tuple[tuple[str, int, int], ...]  # path, size, time of change of files


@dataclass(frozen=True, kw_only=True)
class Part:
    """What an address answers."""

    body: bytes
    packed: bytes  # the same by gzip
    kind: str
    tag: str

    @classmethod
    def of(cls, text: str, kind: str) -> "Part":
        """A text, with a tag that changes with it."""
        body = text.encode()
        return cls(body=body, packed=gzip.compress(body, 1, mtime=0), kind=f"{kind}; charset=utf-8", tag=hashlib.sha256(body).hexdigest()[:16])


class LiveReport:
    """The pages of some run folders, made anew when their files have changed and somebody asks."""

    def __init__(self, runs: Sequence[Path], store: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.runs, self.store, self.clock = tuple(runs), store, clock
        self.lock = threading.Lock()
        self.looked, self.made, self.took_s = float("-inf"), float("-inf"), 0.0
        self.records: Signature | None = None
        self.report: Part | None = None
        self.recorded = 0
        self.problem = ""
        self.shell = Part.of(shell_page([run.resolve().name for run in runs]), "text/html")
        self.state = Part.of("{}", "application/json")

    def part(self, name: str) -> Part | None:
        """What an address answers now: '' the page, 'report' the report in it, 'state' what has changed. None: there is none."""
        if name == "":
            return self.shell
        if name not in ("state", "report"):
            return None
        with self.lock:
            self.refresh()
            return self.state if name == "state" else self.report

    def refresh(self) -> None:
        """Looks for changes if it is time, and makes what has changed."""
        if self.clock() < self.looked + LOOK_S:
            return
        self.looked = self.clock()
        signature = signature_of(self.runs)
        if signature != self.records and self.clock() >= self.made + BUSY * self.took_s:
            self.records = signature
            self.make_report()
        running = stages_in_training(self.runs)
        line = f"{number_of(self.recorded, 'cell')} recorded, {number_of(len(running), 'stage')} in training{self.problem}"
        state = {"report": self.report.tag if self.report else None, "running": cards_page(running), "line": line}
        self.state = Part.of(json.dumps(state), "application/json")

    def make_report(self) -> None:
        """Makes the report. Before the first record there is none; a report that cannot be made leaves the last one, and says why."""
        begun = self.clock()
        try:
            merged = merge(self.runs, store=self.store)
            self.report = Part.of(report(make_rows(merged), merged, self.runs), "text/html")
            self.recorded, self.problem = len(merged.records), ""
        except AnalysisError as error:
            self.problem = "" if self.report is None else f" ({printable(str(error))})"
        except OSError as error:
            self.problem = f" (files cannot be read: {printable(str(error))})"
        self.made, self.took_s = self.clock(), self.clock() - begun


def signature_of(runs: Sequence[Path]) -> Signature:
    """What changes with the files that a report is made from. Curves of a cell are complete when its record is there."""
    files: list[tuple[str, int, int]] = []
    for path in (path for run in runs for pattern in (PLAN, f"{CELLS}/*/{RECORD}") for path in run.glob(pattern)):
        try:
            status = path.stat()
        except OSError:  # it was removed meanwhile
            continue
        files.append((str(path), status.st_size, status.st_mtime_ns))
    return tuple(sorted(files))


def shell_page(names: Sequence[str]) -> str:
    """The page around the report."""
    return template("live.html").render(names=names, script=live_script())


def live_script() -> str:
    """The script of that page."""
    return (HERE / "live.js").read_text(encoding="utf-8")


def cards_page(running: Sequence[StageCurves]) -> str:
    """The stages in training, as a part of a page; empty without any."""
    if not running:
        return ""
    shown = [card(curves) for curves in running[:CARDS]]
    return template("running.html").render(cards=shown, left_out=len(running) - len(shown))


def card(curves: StageCurves) -> dict[str, str]:
    """A stage in training as the template shows it."""
    now = curves.progress
    epoch = f"epoch {now.epoch} of {now.epochs}, step {now.step} of {now.steps}; " if now else ""
    return {
        "title": curves.title,
        "stage": curves.stage,
        "line": f"{epoch}last metrics {time.strftime('%H:%M:%S', time.localtime(curves.changed))}",
        "loss": polyline(curves.loss),
        "loss_range": from_to(curves.loss, ".3g"),
        "val_top1": polyline(curves.val_top1),
        "val_range": from_to(curves.val_top1, ".2f"),
    }


def polyline(points: Points) -> str:
    """The points of a curve that fills its box; a single value is a line across it."""
    if not points:
        return ""
    steps, values = [step for step, _ in points], [value for _, value in points]
    low, wide, high = min(values), (max(steps) - min(steps)) or 1.0, (max(values) - min(values)) or 1.0
    if len(points) == 1:
        return f"0,{HEIGHT / 2:g} {WIDTH},{HEIGHT / 2:g}"
    return " ".join(f"{WIDTH * (step - min(steps)) / wide:.1f},{4 + HEIGHT * (1 - (value - low) / high):.1f}" for step, value in points)


def from_to(points: Points, form: str) -> str:
    """First and last value, such as '2.3 to 0.41'."""
    if not points:
        return ""
    return f"{format(points[0][1], form)} to {format(points[-1][1], form)}" if len(points) > 1 else format(points[0][1], form)


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD of the addresses that the server knows."""

    protocol_version = "HTTP/1.1"
    timeout = 60.0  # seconds until a connection without a request is closed
    server: "LiveServer"

    def do_GET(self) -> None:
        """The whole answer."""
        self.answer(body=True)

    def do_HEAD(self) -> None:
        """The head of the answer alone."""
        self.answer(body=False)

    def answer(self, body: bool) -> None:
        """Sends a part, 304 where the browser has it already, or an error without details."""
        if self.headers.get("Host", "").rsplit(":", 1)[0] not in HOSTS:
            self.send(HTTPStatus.FORBIDDEN, b"", {})
            return
        word, slash, name = self.path.partition("?")[0].removeprefix("/").partition("/")
        part = self.server.live.part(name) if slash and compare_digest(word.encode(), self.server.word.encode()) else None
        if part is None:
            self.send(HTTPStatus.NOT_FOUND, b"", {})
            return
        headers = {"Content-Type": part.kind, "ETag": f'"{part.tag}"', "Vary": "Accept-Encoding"}
        if f'"{part.tag}"' in self.headers.get("If-None-Match", ""):
            self.send(HTTPStatus.NOT_MODIFIED, b"", headers)
            return
        packed = "gzip" in self.headers.get("Accept-Encoding", "")
        content = part.packed if packed else part.body
        headers |= {"Content-Encoding": "gzip"} if packed else {}
        headers |= {"Content-Security-Policy": POLICY} if name == "" else {}
        self.send(HTTPStatus.OK, content, headers, body=body)

    def send(self, status: HTTPStatus, content: bytes, headers: Mapping[str, str], *, body: bool = True) -> None:
        """Sends an answer."""
        self.send_response(status)
        always = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "SAMEORIGIN"}
        length = {} if status == HTTPStatus.NOT_MODIFIED else {"Content-Length": str(len(content))}
        for name, value in (always | length | dict(headers)).items():
            self.send_header(name, value)
        self.end_headers()
        if body and content:
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a request every few seconds is no news."""

    def version_string(self) -> str:
        """The name in answers, without versions."""
        return "vssm-bench"


POLICY = "; ".join(
    (
        "default-src 'none'",
        f"script-src 'sha256-{integrity(live_script())}'",
        "style-src 'unsafe-inline'",
        "connect-src 'self'",
        "frame-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
    )
)


class LiveServer(ThreadingHTTPServer):
    """The server of one live report."""

    daemon_threads = True  # a connection that a browser keeps open does not keep the command
    allow_reuse_port = False  # a port in use is an error

    def __init__(self, live: LiveReport, port: int) -> None:
        self.live, self.word = live, token_urlsafe(12)
        super().__init__((ADDRESS, port), Handler)

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{ADDRESS}:{self.server_address[1]}/{self.word}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a browser that goes away in the middle of an answer is no news."""


def serve(runs: Sequence[Path], port: int) -> int:
    """Serves the report until Ctrl-C; returns 0. Raises AnalysisError for folders that are no run folders, and for a port in use."""
    if not any(RunFolder(run).index_path() for run in runs):
        merge(runs)
    with TemporaryDirectory() as folder:
        try:
            server = LiveServer(LiveReport(runs, Path(folder) / "records.store"), port)
        except OSError as error:
            raise AnalysisError(
                f"port {port} of {ADDRESS}: {error.strerror}; give another one with --port, or --port 0 for any that is free"
            ) from error
        signal.signal(signal.SIGTERM, interrupt)
        with server:
            try:
                print(f"{server.url}   Ctrl-C ends it", flush=True)
                print(
                    f"from another machine: ssh -L {server.server_address[1]}:{ADDRESS}:{server.server_address[1]} {socket.gethostname()}", flush=True
                )
                server.serve_forever(poll_interval=0.2)
            except KeyboardInterrupt:
                print("\nended", flush=True)
    return 0


def interrupt(signum: int, frame: object) -> NoReturn:
    """SIGTERM ends the server as Ctrl-C does, so that its store is removed."""
    raise KeyboardInterrupt
