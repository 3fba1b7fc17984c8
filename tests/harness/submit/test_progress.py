"""The display of a local launch: plain lines, and a live table."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from harness.submit import progress as module
from harness.submit.local import LocalQueue, QueuedJob
from harness.submit.progress import ProgressDisplay
from jobs.worker.failures import record_failure
from tests.support.jobs import jobs_of, small_grid
from tests.support.runs import FakeRun


def shown(fake: FakeRun, terminal: bool = False) -> tuple[ProgressDisplay, io.StringIO]:
    """A display, and what it prints."""
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=200)
    return ProgressDisplay(fake.run, fake.paths, console=console), text


def queue_of(fake: FakeRun, tmp_path: Path) -> LocalQueue:
    """A queue whose first job runs and whose others wait."""
    jobs, _ = jobs_of(small_grid(tmp_path), fake.run)
    queue = LocalQueue.of(fake.run, jobs, fake.grid.cluster)
    queue.running[0] = queue.waiting.pop(0)
    return queue


def test_a_cell_is_reported_once_when_it_has_ended(fake: FakeRun, tmp_path: Path) -> None:
    planned, other = fake.paths[:2]
    fake.record(other)
    display, text = shown(fake)
    fake.fail(planned.stages[0], "ValueError", "it is broken")
    with display:
        display(queue_of(fake, tmp_path))
        job = jobs_of(small_grid(tmp_path), fake.run)[0][0]
        failed = fake.run.failure(planned.stages[0])
        assert failed is not None
        record_failure(fake.run, failed, job, 1)
        display(queue_of(fake, tmp_path))
    lines = [line for line in text.getvalue().splitlines() if planned.cell.id in line]
    assert len(lines) == 1 and "FAILED: ValueError: it is broken (" in lines[0] and lines[0].startswith("2/6")
    assert other.cell.id not in text.getvalue(), "it had ended before"


def test_a_death_is_reported_when_its_stage_goes_on(fake: FakeRun, tmp_path: Path) -> None:
    display, text = shown(fake)
    queue = queue_of(fake, tmp_path)
    stage = queue.running[0].job.stages[0].id
    with display:
        display(queue)
        queue.deaths[stage] = 1
        display(queue)
        display(queue)
    assert text.getvalue().count(f"a job died without an error; stage {stage} goes on from its last checkpoint") == 1


def test_without_a_terminal_a_line_tells_now_and_then_how_far_a_stage_is(fake: FakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    display, text = shown(fake)
    queue = queue_of(fake, tmp_path)
    stage = queue.running[0].job.stages[0].id
    with display:
        display(queue)
        assert "starting" in text.getvalue()
        fake.beat(stage)
        monkeypatch.setattr(module, "LINE_EVERY_S", 1e9)
        display(queue)
        assert "1/4" not in text.getvalue(), "not so soon"
        monkeypatch.setattr(module, "LINE_EVERY_S", 0.0)
        display(queue)
    assert "vim_micro  train  seed 0   1/4   0.500   100   1:15" in text.getvalue()


def test_a_stage_whose_cells_are_being_measured_says_so(fake: FakeRun, tmp_path: Path) -> None:
    display, text = shown(fake)
    queue = queue_of(fake, tmp_path)
    queue.running[0] = QueuedJob(next(queued.job for queued in queue.waiting if queued.job.stages[0].parent))
    fake.finish(queue.running[0].job.stages[0].id)
    with display:
        display(queue)
    assert "measuring" in text.getvalue()


def test_in_a_terminal_a_table_counts_cells_and_waiting_stages(fake: FakeRun, tmp_path: Path) -> None:
    display, text = shown(fake, terminal=True)
    queue = queue_of(fake, tmp_path)
    fake.beat(queue.running[0].job.stages[0].id)
    display.console.print(display.table(queue))
    table = text.getvalue()
    assert "images/s" in table and "1/4" in table and "0/6 cells, 7 stages waiting" in table and "Ctrl-C stops; the same command resumes" in table
