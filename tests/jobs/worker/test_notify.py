"""A command that tells of a launch."""

import json
import os
import threading
from pathlib import Path

import psutil
import pytest

from jobs.experiment.specs import NotifySpec
from jobs.worker import notify
from jobs.worker.notify import EndJob, is_over, read_notice, save_notice, tell, tell_end, tell_end_if_over
from tests.support.runs import FakeRun
from tests.support.waiting import PATIENCE_S, wait_until

WRITES = 'cat > given.json; env | grep ^VSSM_BENCH_ | sort > variables; echo "$VSSM_BENCH_EVENT" >> told'


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The status is not asked for: a process of its own takes a second."""
    monkeypatch.setattr(notify, "status_of", lambda run, limit_s: None)


def told() -> list[str]:
    """The events of which the command has told."""
    return Path("told").read_text().split() if Path("told").exists() else []


def test_a_command_gets_event_counts_and_status(fake: FakeRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    save_notice(fake.run, NotifySpec(command=WRITES, timeout_s=PATIENCE_S))
    first, second = fake.trunks
    fake.record(fake.paths[0])
    fake.fail(second)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    tell(fake.run, "first_failure", failure="ValueError: no\nline two")
    given = json.loads((tmp_path / "given.json").read_text())
    assert given["event"] == "first_failure" and given["failure"].startswith("ValueError") and given["run"] == str(fake.run.path.resolve())
    assert given["status"]["cells"]["done"] == 1 and given["status"]["cells"]["blocked"] == 3
    lines = (tmp_path / "variables").read_text()
    assert "VSSM_BENCH_CELLS=6\nVSSM_BENCH_DONE=1\nVSSM_BENCH_EVENT=first_failure\nVSSM_BENCH_FAILED=3\n" in lines
    assert f"VSSM_BENCH_GRID=small\nVSSM_BENCH_RUN={fake.run.path.resolve()}\n" in lines


@pytest.mark.usefixtures("silent")
def test_each_event_of_a_launch_is_told_once_whoever_tells(fake: FakeRun) -> None:
    save_notice(fake.run, NotifySpec(command=WRITES))
    together = [threading.Thread(target=tell, args=(fake.run, "end")) for _ in range(8)]
    for thread in together:
        thread.start()
    for thread in together:
        thread.join()
    assert told() == ["end"]
    tell(fake.run, "first_failure")
    tell(fake.run, "first_failure")
    assert told() == ["end", "first_failure"]
    save_notice(fake.run, NotifySpec(command=WRITES, on=("end",)))
    for event in ("end", "first_failure"):
        tell(fake.run, event)  # type: ignore[arg-type]
    assert told() == ["end", "first_failure", "end"], "another launch tells of its own end"


@pytest.mark.usefixtures("silent")
def test_the_job_of_a_launch_that_another_followed_says_nothing(fake: FakeRun) -> None:
    before = save_notice(fake.run, NotifySpec(command=WRITES))
    after = save_notice(fake.run, NotifySpec(command=WRITES))
    assert before and after
    tell_end(EndJob(run=str(fake.run.path), launch=before))
    assert told() == []
    tell_end(EndJob(run=str(fake.run.path), launch=after))
    assert told() == ["end"]
    save_notice(fake.run, None)
    assert read_notice(fake.run) is None
    tell_end(EndJob(run=str(fake.run.path), launch=after))
    assert told() == ["end"]


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("exit 3", "the command ended with 3"),
        ("no-such-program", "the command ended with 127"),
        ("kill -9 $$", "the command ended with -9"),
        ("exec 0<&-; true", "done"),
        ("trap '' TERM INT; (sleep 900 &); echo waits; while :; do sleep 900; done", "was ended after 0.3 s"),
    ],
)
def test_a_command_that_fails_or_takes_too_long_harms_nothing(fake: FakeRun, capsys: pytest.CaptureFixture[str], command: str, said: str) -> None:
    save_notice(fake.run, NotifySpec(command=command, timeout_s=0.3 if "sleep" in command else PATIENCE_S))
    tell(fake.run, "end", failure="x" * 100_000)
    assert said in capsys.readouterr().out
    wait_until(lambda: not others_here(), "what it started to be gone too")
    if "sleep" in command:
        (output,) = (fake.run.path / "notified").iterdir()
        assert output.read_text() in ("waits\n", ""), "a busy machine may end it before it says so"


def others_here() -> list[psutil.Process]:
    """The other processes that run in this folder. One that has ended has no folder."""
    return [each for each in psutil.process_iter(["cwd"]) if each.info["cwd"] == os.getcwd() and each.pid != os.getpid()]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"launch": "a"}', "nul\0"])
def test_a_damaged_notice_is_reported_and_harms_nothing(fake: FakeRun, capsys: pytest.CaptureFixture[str], content: str) -> None:
    (fake.run.path / "notify.json").write_text(content)
    tell(fake.run, "end")
    assert "notify: end: not told" in capsys.readouterr().out


def test_a_run_without_a_notice_says_nothing(fake: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    tell(fake.run, "end")
    tell_end_if_over(fake.run)
    assert capsys.readouterr().out == "" and not (fake.run.path / "notified").exists()


@pytest.mark.usefixtures("silent")
def test_a_run_is_over_when_no_cell_is_left_to_run(fake: FakeRun) -> None:
    save_notice(fake.run, NotifySpec(command=WRITES))
    first, second = fake.trunks
    for path in fake.cells_of(first):
        fake.record(path)
    assert not is_over(fake.run)
    fake.fail(fake.cells_of(second)[0].stages[-1])
    fake.run.cancel(fake.cells_of(second)[1].cell.id)
    tell_end_if_over(fake.run)
    assert told() == []
    fake.fail(fake.cells_of(second)[2].stages[-1])
    tell_end_if_over(fake.run)
    assert is_over(fake.run) and told() == ["end"]
    os.remove(fake.run.path / "index.json")
    tell_end_if_over(fake.run)
