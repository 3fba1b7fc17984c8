"""The parts of a status."""

import io
import os
import re

import pytest
from rich.console import Console

from harness.monitor.incidents import Incident, grouped
from harness.monitor.run_status import Observer
from harness.monitor.status_view import counts_table, incident_lines, notes, page, progress_cells
from harness.monitor.survey import STATES, survey
from jobs.experiment.ids import StageId
from jobs.experiment.progress import StageProgress, read_progress
from tests.support.fake_slurm import SILENT, FakeSlurm
from tests.support.runs import FakeRun

PROGRESS = StageProgress(epoch=1, epochs=4, step=25, steps=100, loss=None, img_per_s=None, eta_s=None, val_top1=None, time=0.0)


def printed(part: object) -> list[str]:
    """A part's lines as a file gets them, each run of spaces as one."""
    console = Console(width=200, highlight=False)
    with console.capture() as capture:
        console.print(part)
    return [" ".join(line.split()) for line in capture.get().splitlines()]


def test_unknown_is_a_column_only_where_there_are_some() -> None:
    known = dict.fromkeys(STATES, 0)
    assert printed(counts_table(known)) == ["done running queued blocked failed open", "0 0 0 0 0 0"]
    assert printed(counts_table({**known, "unknown": 2}))[0].endswith("open unknown")


def test_a_stage_at_work_starts_trains_falls_silent_and_is_measured(fake: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = fake.trunks[0]
    surveyed = survey(fake.run)
    assert progress_cells(surveyed, stage, None) == ("starting", "", "", "")
    fake.beat(stage)
    assert progress_cells(surveyed, stage, read_progress(fake.run.stage_dir(stage))) == ("1/4", "0.500", "100", "1:15")
    assert progress_cells(surveyed, stage, PROGRESS) == ("1/4", "", "", "")
    monkeypatch.setattr("harness.monitor.survey.time.time", lambda: 1600.0)
    os.utime(fake.run.stage_dir(stage) / "progress.json", (1000.0, 1000.0))
    assert progress_cells(surveyed, stage, PROGRESS) == ("1/4", "", "", "no progress for 10:00")
    fake.finish(stage)
    assert progress_cells(survey(fake.run), stage, PROGRESS) == ("measuring", "", "", "")


def test_a_group_of_incidents_shows_the_first_ones_log_and_how_its_cells_go_on(fake: FakeRun) -> None:
    stage = StageId(fake.trunks[0])
    incident = Incident(kind="ValueError", location="a.py:1 in f", policy="never", stage=stage, cells=3, excerpt=("ValueError: no",), node="node1")
    (group,) = grouped([incident])
    assert [line.plain for line in incident_lines(group, survey(fake.run))] == [
        "\n3 cells, 1 stage: ValueError at a.py:1 in f, on node1 (1)",
        "    ValueError: no",
        f"  stage {stage} (vim_micro  train  seed 0); full log: python -m harness.logs {stage}",
        f"  not retried automatically; fix the cause, then: {survey(fake.run).launch_command} --retry-failed",
    ]


def test_an_excerpt_cannot_act_on_the_terminal_and_a_narrow_one_shows_all(fake: FakeRun) -> None:
    fake.fail(fake.paths[0].stages[0], traceback="Traceback\n\x1b[2Jerased\n")
    console = Console(file=io.StringIO(), width=40)
    console.print(page(Observer(fake.run).look()))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    words = " ".join(text.split())
    assert "\x1b" not in text and max(map(len, text.splitlines())) <= 40
    assert all(re.search(rf"\b{state} \d+", words) for state in ("done", "running", "queued", "blocked", "failed", "open"))


def test_only_so_many_groups_of_incidents_are_shown(fake: FakeRun) -> None:
    for number, path in enumerate(fake.paths):
        for stage in path.stages[1:]:
            fake.fail(stage, kind=f"Error{number}")
    assert not any("more kind" in line for line in printed(page(Observer(fake.run).look())))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.monitor.status_view.GROUPS", 1)
        groups = len({stage for path in fake.paths for stage in path.stages[1:]})
        assert any(line == f"and {groups - 1} more kinds of failure" for line in printed(page(Observer(fake.run).look())))


def test_a_silent_slurm_leaves_its_jobs_unknown_and_nothing_is_lost(fake: FakeRun, slurm: FakeSlurm) -> None:
    fake.submit({"17": [fake.trunks[0]]})
    slurm.fails("squeue", SILENT)
    line = next(line for line in notes(survey(fake.run, patience_s=0.0, say=lambda text: None)) if "does not answer" in line)
    assert line.endswith(": the state of its jobs is unknown; nothing is lost, rerun this command later")


def test_one_open_cell_is_in_the_singular(fake: FakeRun) -> None:
    for path in fake.paths[1:]:
        fake.record(path)
    surveyed = survey(fake.run)
    assert notes(surveyed) == [f"1 cell is open: no job has it; resume with: {surveyed.launch_command}"]
