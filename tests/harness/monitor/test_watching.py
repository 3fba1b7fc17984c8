"""A status that stays on the screen, and the lines that stand for it elsewhere."""

import io
import signal
import sys
import termios
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest
from rich.console import Console
from rich.text import Text

from harness.monitor.memory import Memory
from harness.monitor.run_status import Observer
from harness.monitor.watching import Fitted, looks, screen, watch
from tests.support.fake_slurm import FakeSlurm
from tests.support.runs import FakeRun, elsewhere
from tests.support.terminals import ALONE, BACK, HIDDEN, SHOWN, terminal
from tests.support.waiting import wait_until

STATUS = [sys.executable, "-m", "harness.status", "small", "--watch"]


def printed(fake: FakeRun, changes: Sequence[Callable[[], object]], end: Callable[[], object]) -> str:
    """What a watching status prints to a file while these things happen, one between two looks; `end` comes last."""
    todo = iter([*changes, end])
    console = Console(file=io.StringIO(), width=200)
    assert watch(Observer(fake.run, Memory(clock=lambda: 0.0)), console, sleep=lambda seconds: next(todo)() and None) is not None
    return console.file.getvalue()  # type: ignore[attr-defined]


def raise_interrupt() -> None:
    """Ctrl-C."""
    raise KeyboardInterrupt


def test_without_a_terminal_a_line_tells_of_each_change_and_nothing_else(fake: FakeRun) -> None:
    one, two = fake.trunks
    done, failed, _ = fake.cells_of(one)
    fake.submit({elsewhere(): [one, two]})
    for stage in (one, two):
        fake.beat(stage)
    changes = [lambda: None, lambda: fake.finish(one), lambda: fake.record(done), lambda: None, lambda: fake.fail(failed.stages[1])]
    text = printed(fake, changes, raise_interrupt)
    head, *events = text.split("running")[0], *text.splitlines()[5:]
    assert "small: 0 of 6 cells done" in head
    assert sum("small:" in line for line in text.splitlines()) == 1, "the whole status comes once"
    assert any(f"done: {done.cell.id}  vim_micro  dense  seed 0" in line for line in events)
    assert sum("ValueError" in line for line in events) == 1 and "1 failed" in text and "\x1b" not in text


def test_watching_ends_with_the_last_job(fake: FakeRun, slurm: FakeSlurm) -> None:
    fake.submit({"17": [fake.trunks[0]]})
    slurm.queue(j17="RUNNING")
    text = printed(fake, [], lambda: fake.fail(fake.trunks[0]))
    assert "3 blocked, 3 open of 6 cells" in text and "1 stage: ValueError" in text and len(slurm.calls("squeue")) == 1


def test_a_look_takes_a_small_part_of_the_time(fake: FakeRun, slurm: FakeSlurm) -> None:
    fake.submit({"17": [fake.trunks[0]]})
    slurm.queue(j17="RUNNING")
    slept: list[float] = []
    seen = looks(Observer(fake.run, Memory()), 2.0, slept.append, clock=iter([0.0, 0.001, 10.0, 13.0, 20.0, 20.0]).__next__)
    for _ in range(3):
        next(seen)
    assert slept == [2.0, 30.0]


@pytest.mark.parametrize("height", [2, 5, 9])
def test_a_status_is_cut_to_its_screen(height: int) -> None:
    console = Console(width=40, height=height, file=io.StringIO())
    shown = Fitted(content=Text("\n".join(map(str, range(8)))), foot="the foot")
    lines = console.render_lines(shown, console.options.update(height=height), pad=False)
    texts = ["".join(segment.text for segment in line) for line in lines]
    assert len(texts) <= height and texts[-1] == "the foot"
    assert height != 5 or texts == ["0", "1", "2", "and 5 more lines: enlarge the window", "the foot"]


def test_failures_stand_above_the_stages_at_work_each_in_a_line(fake: FakeRun) -> None:
    one, two = fake.trunks
    fake.submit({elsewhere(): [two]})
    fake.beat(two)
    fake.fail(one, traceback="Traceback\nValueError: the reason\x1b[2J")
    console = Console(width=100, file=io.StringIO())
    console.print(screen(Observer(fake.run).look()))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"3 cells, 1 stage: ValueError: the reason\\x1b[2J; python -m harness.logs {one}" in " ".join(text.split())
    assert text.index("the reason") < text.index(two) and "\x1b" not in text


def test_one_screen_stays_follows_its_window_and_leaves_the_terminal_as_it_was(fake: FakeRun, tmp_path: Path) -> None:
    fake.submit({elsewhere(): [fake.trunks[0]]})
    fake.beat(fake.trunks[0])
    with terminal(STATUS, tmp_path, columns=40, lines=20, PYTHONIOENCODING="ascii") as shown:
        shown.read_until("Ctrl-C leaves")
        shown.read_until("Ctrl-C leaves", after=len(shown.output))
        frame = shown.frame()
        assert len(frame) == 20 and max(map(len, frame)) <= 40 and "small: 0 of 6 cells done" in frame[0]
        assert any(line.startswith("vim_micro ") and "...." in line for line in frame), "a bar in ASCII"
        assert shown.output.startswith((ALONE, HIDDEN)) and "\x1b[2J" not in shown.output and shown.output.isascii()
        shown.resize(60, 6)
        while len(shown.frame()) != 6:
            shown.read_until("Ctrl-C leaves", after=len(shown.output))
        assert shown.frame()[4].rstrip().endswith("more lines: enlarge the window") and max(map(len, shown.frame())) <= 60
        shown.press("\x03")
        assert shown.end() == 0
        left = shown.output.partition(BACK)[2]
        assert shown.output.rindex(SHOWN) > shown.output.rindex(HIDDEN) and "small: 0 of 6 cells done" in left and ALONE not in left
        assert termios.tcgetattr(shown.inner) == shown.settings and "Traceback" not in shown.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGTSTP], ids=["SIGTERM", "SIGTSTP"])
def test_a_signal_too_leaves_a_clean_terminal(fake: FakeRun, tmp_path: Path, number: signal.Signals) -> None:
    fake.submit({elsewhere(): [fake.trunks[0]]})
    fake.beat(fake.trunks[0])
    with terminal(STATUS, tmp_path) as shown:
        shown.read_until("Ctrl-C leaves")
        shown.process.send_signal(number)
        shown.read_until(BACK)
        shown.read_until(SHOWN, after=shown.output.rindex(HIDDEN))
        if number == signal.SIGTSTP:
            wait_until(lambda: psutil.Process(shown.process.pid).status() == psutil.STATUS_STOPPED, "the process to stop")
            begun = len(shown.output)
            shown.process.send_signal(signal.SIGCONT)
            shown.read_until("Ctrl-C leaves", after=begun)
            assert ALONE in shown.output[begun:]
            shown.press("\x03")
        assert shown.end() == 0 and shown.output.rindex(SHOWN) > shown.output.rindex(HIDDEN)
