"""The run folder: its files are its state."""

import os
from pathlib import Path

import pytest

from jobs.experiment.records import RecordError, read_record
from jobs.experiment.run_folder import REPLAY_TODO, RunFolder
from tests.support.failures import failed_record, failure


def test_the_first_failure_of_a_stage_stays(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.write_failure("s1", failure(message="first"))
    assert not run.write_failure("s1", failure(message="a bystander's"))
    assert run.failure("s1") == failure(message="first")


def test_forgetting_failures_leaves_done_cells_alone(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write_failure("s1", failure())
    run.write_record(failed_record("c1"))
    run.forget_failures(["s1", "never-failed"], ["c1", "never-run"])
    assert run.failure("s1") is None
    assert run.record("c1") is None


def test_a_cell_that_was_cancelled_is_wanted_again(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.want(["a"])  # nothing was ever cancelled here
    (tmp_path / "cancelled").mkdir()
    for cell in ("a", "b"):
        (tmp_path / "cancelled" / cell).touch()
    run.want(["a", "c"])
    assert run.cancelled("b") and not run.cancelled("a") and run.cancelled_cells() == {"b"}


def test_jobs_leave_out_a_cancelled_cell(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert not run.cancelled("a") and run.cancelled_cells() == frozenset()
    run.cancel("a")
    run.cancel("a")
    assert run.cancelled("a") and run.cancelled_cells() == {"a"}


def test_a_stage_is_done_once_its_export_is_there_and_nothing_asks_for_more(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert not run.done("s1")
    run.export_dir("s1").mkdir(parents=True)
    assert run.done("s1")
    (run.stage_dir("s1") / REPLAY_TODO).touch()
    assert not run.done("s1")


def test_the_records_of_all_cells_that_have_ended_are_listed(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    (tmp_path / "cells" / "running").mkdir(parents=True)
    for cell in ("c1", "c2"):
        run.write_record(failed_record(cell))
    assert sorted(read_record(path).id for path in run.record_paths()) == ["c1", "c2"]


def test_every_part_has_its_own_path(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    of_stage = (run.stage_dir("a"), run.export_dir("a"), run.progress_path("a"), run.failure_path("a"), run.stage_claim("a"))
    of_cell = (run.record_path("a"), run.cell_claim("a"))
    of_run = (run.launch_lock, run.jobs_dir, run.grid_path, run.plan_path, run.node_dir("a"))
    paths = [path.relative_to(tmp_path).as_posix() for path in (*of_stage, *of_cell, *of_run)]
    assert paths == [
        "stages/a",
        "stages/a/export",
        "stages/a/progress.json",
        "stages/a/failure.json",
        "claims/a",
        "cells/a/record.json",
        "claims/cell-a",
        "launch.lock",
        "jobs",
        "grid.yaml",
        "plan.json",
        "nodes/a",
    ]


def test_a_failure_with_a_foreign_file_name_is_read_again(tmp_path: Path) -> None:
    run, name = RunFolder(tmp_path), os.fsdecode(b"caf\xe9.png")
    run.write_failure("s1", failure(message=f"{name} is no image"))
    run.write_record(failed_record().model_copy(update={"model": name}))
    stopped, record = run.failure("s1"), run.record("c1")
    assert stopped is not None and stopped.message == "caf\\xe9.png is no image"
    assert record is not None and record.model == "caf\\xe9.png"


@pytest.mark.parametrize("name", [b"caf\xe9", b"caf\\udce9"])
def test_a_failure_that_an_older_version_wrote_is_read_too(tmp_path: Path, name: bytes) -> None:
    run = RunFolder(tmp_path)
    run.write_failure("s1", failure(message="NAME"))
    run.write_record(failed_record().model_copy(update={"model": "NAME"}))
    for path in (run.failure_path("s1"), run.record_path("c1")):
        path.write_bytes(path.read_bytes().replace(b"NAME", name))
    stopped, record = run.failure("s1"), run.record("c1")
    assert stopped is not None and stopped.message == "caf\\xe9"
    assert record is not None and record.model == "caf\\xe9"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"kind": 3}', '{"status": "failed"}', "null"])
def test_what_cannot_be_read_counts_as_failed_and_is_forgotten_with_the_failures(tmp_path: Path, content: str) -> None:
    run = RunFolder(tmp_path)
    for path in (run.failure_path("s1"), run.record_path("c1")):
        path.parent.mkdir(parents=True)
        path.write_text(content)
    stopped = run.failure("s1")
    assert stopped is not None and stopped.kind == "torn file" and "failure.json" in stopped.message and "remove it" in stopped.message
    assert run.readable_record("c1") is None
    with pytest.raises(RecordError, match=r"record\.json is not a record"):
        run.record("c1")
    run.forget_failures(["s1"], ["c1"])
    assert run.failure("s1") is None and run.record("c1") is None
