"""The report that a browser follows."""

import gzip
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from analysis.live import CARDS, LOOK_S, LiveReport, LiveServer, cards_page, from_to, polyline, serve, shell_page
from analysis.merge import AnalysisError
from analysis.running import StageCurves
from tests.support.commands import command
from tests.support.records import EVIL, fake_curve, fake_grid, fake_record, fake_run
from tests.support.runs import FakeRun
from tests.support.runs import fake_run as launched


class Clock:
    """A clock that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def live(fake: FakeRun, clock: Clock, tmp_path: Path) -> LiveReport:
    return LiveReport([fake.run.path], tmp_path / "store", clock)


def state(live: LiveReport) -> dict[str, str]:
    """What a browser is told now."""
    part = live.part("state")
    assert part is not None
    return dict(json.loads(part.body))


def test_a_run_is_followed_from_its_first_step_to_its_records(fake: FakeRun, live: LiveReport, clock: Clock) -> None:
    assert state(live)["report"] is None and live.part("report") is None
    fake_curve(fake.run.path, fake.trunks[0], 3)
    assert state(live)["running"] == "", "it does not look again so soon"
    clock.now += LOOK_S
    shown = state(live)
    assert "vim_micro  train  seed 0" in shown["running"] and shown["running"].count("<polyline") == 2
    assert shown["line"].startswith("0 cells recorded, 1 stage in training")
    for record in fake_grid()[:3]:
        fake_run(fake.run.path, [record])
    clock.now += LOOK_S
    first = state(live)
    report = live.part("report")
    assert first["line"].startswith("3 cells recorded") and report is not None and first["report"] == report.tag and b"<table" in report.body
    clock.now += LOOK_S
    assert state(live) == first, "without a change it is the same to the byte"
    fake_run(fake.run.path, fake_grid()[3:4])
    clock.now += LOOK_S
    assert state(live)["report"] != first["report"]


def test_a_report_is_made_no_more_often_than_it_pays(fake: FakeRun, clock: Clock, tmp_path: Path) -> None:
    live = LiveReport([fake.run.path], tmp_path / "store", clock)
    live.took_s, live.made = 10.0, 0.0
    fake_run(fake.run.path, fake_grid()[:1])
    for clock.now in (10.0, 49.0):
        assert state(live)["report"] is None
    clock.now = 51.0
    assert state(live)["report"]


def test_a_folder_that_goes_away_or_a_record_that_is_torn_leaves_the_last_report(fake: FakeRun, live: LiveReport, clock: Clock) -> None:
    for record in fake_grid()[:2]:
        fake_run(fake.run.path, [record])
    before = state(live)["report"]
    torn, _ = sorted(fake.run.record_paths())
    torn.write_text("{")
    clock.now += LOOK_S
    after = state(live)
    assert after["line"].startswith("1 cell recorded") and after["report"] != before
    fake.run.path.rename("elsewhere")
    clock.now += LOOK_S
    shown = state(live)
    assert shown["report"] == after["report"] and "no such folder" in shown["line"]
    Path("elsewhere").rename(fake.run.path)
    clock.now += LOOK_S
    assert "no such folder" not in state(live)["line"]


def test_nothing_is_written_to_the_run_folder(fake: FakeRun, live: LiveReport) -> None:
    fake_run(fake.run.path, fake_grid()[:1])
    before = sorted(fake.run.path.rglob("*"))
    assert state(live)["report"] and sorted(fake.run.path.rglob("*")) == before


def test_what_a_stage_is_called_never_becomes_markup(fake: FakeRun, live: LiveReport) -> None:
    index = json.loads((fake.run.path / "index.json").read_text())
    index["stages"][fake.trunks[0]][0] = EVIL
    (fake.run.path / "index.json").write_text(json.dumps(index))
    fake_curve(fake.run.path, fake.trunks[0], 1)
    assert "<img" not in state(live)["running"] and "&lt;img" in state(live)["running"]
    assert "<img" not in shell_page([EVIL]).partition("<script>")[0]


def test_only_so_many_stages_are_drawn(fake: FakeRun, live: LiveReport) -> None:
    index = json.loads((fake.run.path / "index.json").read_text())
    for number in range(CARDS + 3):
        index["stages"][f"stage{number}"] = ["vim  train", number, 1]
        fake_curve(fake.run.path, f"stage{number}", 1)
    (fake.run.path / "index.json").write_text(json.dumps(index))
    shown = state(live)["running"]
    assert shown.count('class="card"') == CARDS and "and 3 more" in shown


def test_a_curve_fills_its_box_from_the_first_step_to_the_last() -> None:
    assert polyline(((0.0, 1.0), (5.0, 0.0), (10.0, 0.5))) == "0.0,4.0 120.0,84.0 240.0,44.0"
    assert polyline(()) == "" and polyline(((3.0, 1.0),)) == "0,40 240,40" and polyline(((1.0, 2.0), (2.0, 2.0))).count("84.0") == 2
    assert (from_to(((1.0, 2.5), (2.0, 0.25)), ".3g"), from_to(((1.0, 2.5),), ".3g"), from_to((), ".3g")) == ("2.5 to 0.25", "2.5", "")
    curves = StageCurves(stage="s", title="t\x1b", loss=(), val_top1=(), progress=None, changed=0.0)
    assert "\x1b" not in (shown := cards_page([curves])) and shown.count("t\\x1b") == 2


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server at work on a free port, with a report."""
    folder = tmp_path_factory.mktemp("live")
    run = launched(folder).run.path
    fake_run(run, [fake_record(90.0)])
    with LiveServer(LiveReport([run], folder / "store", lambda: 0.0), 0) as opened:
        threading.Thread(target=opened.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield opened
        opened.shutdown()


def ask(server: LiveServer, path: str, method: str = "GET", **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Status, headers and body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1])
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, answer.headers, body


def test_a_browser_gets_what_it_does_not_have(server: LiveServer) -> None:
    status, headers, body = ask(server, f"/{server.word}/")
    assert status == 200 and b"<iframe" not in body and "script-src 'sha256-" in headers["Content-Security-Policy"]
    status, headers, body = ask(server, f"/{server.word}/state")
    assert status == 200 and json.loads(body)["report"]
    status, again, body = ask(server, f"/{server.word}/state", If_None_Match=headers["ETag"])
    assert (status, body, again["ETag"]) == (304, b"", headers["ETag"])
    status, headers, packed = ask(server, f"/{server.word}/report?tag", Accept_Encoding="gzip")
    assert status == 200 and headers["Content-Encoding"] == "gzip" and b"<table" in gzip.decompress(packed) and len(packed) < 3_000_000
    status, headers, body = ask(server, f"/{server.word}/report", method="HEAD")
    assert status == 200 and body == b"" and int(headers["Content-Length"]) > 1_000_000


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/state",
        "/WORD",
        "/WORD/../etc/passwd",
        "/WORD/..%2f..%2fetc%2fpasswd",
        "/WORD//etc/passwd",
        "/WORD/report/x",
        "/wrong/state",
        "//",
    ],
)
def test_no_other_address_is_answered(server: LiveServer, path: str) -> None:
    status, _, body = ask(server, path.replace("WORD", server.word))
    assert status == 404 and body == b""


def test_a_page_from_elsewhere_gets_nothing(server: LiveServer) -> None:
    path = f"/{server.word}/state"
    assert ask(server, path, Host="evil.example:80")[0] == 403 and ask(server, path, Host="localhost:9000")[0] == 200
    assert ask(server, path, method="POST")[0] == 501
    assert server.server_address[0] == "127.0.0.1"


def test_a_browser_that_goes_away_stops_nothing(server: LiveServer) -> None:
    whole = f"GET /{server.word}/report HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    for request in (b"", b"GET /", b"GET /\xff/\0 HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x16\x03\x01 no http\r\n\r\n", whole):
        with socket.create_connection(server.server_address[:2]) as connection:  # type: ignore[arg-type]
            connection.sendall(request)
    assert ask(server, f"/{server.word}/state")[0] == 200


def test_a_port_in_use_and_a_folder_that_is_no_run_are_errors(fake: FakeRun, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(AnalysisError, match=f"port {port} of 127.0.0.1: Address already in use; give another one with --port"):
            serve([fake.run.path], port)
    with pytest.raises(AnalysisError, match="no such folder"):
        serve([tmp_path / "none"], 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_ctrl_c_ends_the_command_and_leaves_nothing(fake: FakeRun, tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "short").mkdir()
    surroundings = os.environ | {"TMPDIR": str(tmp_path / "short")}
    words = command("analysis", fake.run.path, "--live", "--port", 0)
    # A shell's & lets SIGINT be ignored, by this test's own process perhaps, and what it starts.
    heed = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(words, env=surroundings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=heed)
    assert process.stdout
    line = process.stdout.readline()
    match = re.match(r"http://127\.0\.0\.1:(\d+)/(\S+)/   Ctrl-C ends it", line)
    assert match, line
    with socket.create_connection(("127.0.0.1", int(match[1]))):  # and stays open
        os.kill(process.pid, number)
        rest = process.communicate()[0]
    assert process.returncode == 0 and rest.endswith("\nended\n") and "Traceback" not in rest
    assert list((tmp_path / "short").iterdir()) == []
