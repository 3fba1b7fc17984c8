"""The run folder: written whole or not at all, truth on disk."""

from pathlib import Path

import pytest

from jobs.experiment.files import write_json, written_aside
from jobs.experiment.records import Failure, Record, read_record
from jobs.experiment.run_folder import RunFolder


def failure(stage: str = "s1", message: str = "first") -> Failure:
    """A failure of a stage."""
    return Failure(kind="ValueError", message=message, stage=stage)


def failed_record(cell: str = "c1") -> Record:
    """The record of a cell that failed."""
    surroundings = {"commit": None, "dirty": None, "python": "3.11", "versions": {}, "host": "h", "cpu": "c", "gpu": None, "ranks": 1, "threads": 1}
    return Record(
        id=cell, grid="g", model="m", pruning="dense", seed=0, spec={}, stages=["s1"], status="failed", failure=failure(),
        environment={**surroundings, "loader": "ffcv", "scan": "cpu", "data_sha256": ""}, started="t", finished="t",
    )  # fmt: skip


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert read_record(run.write_record(failed_record())) == failed_record()


def test_a_torn_record_is_refused(tmp_path: Path) -> None:
    path = RunFolder(tmp_path).write_record(failed_record())
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="record.json is not a record"):
        read_record(path)


def test_a_record_with_a_field_of_another_schema_is_refused(tmp_path: Path) -> None:
    path = RunFolder(tmp_path).write_record(failed_record())
    path.write_text(path.read_text().replace('"seed"', '"sede"'))
    with pytest.raises(ValueError, match="sede"):
        read_record(path)


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


def test_a_writer_that_fails_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, 1)
    with pytest.raises(RuntimeError), written_aside(path) as aside:
        aside.write_text("half")
        raise RuntimeError
    assert path.read_text() == "1\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_cell_that_was_cancelled_is_wanted_again(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.want(["a"])  # nothing was ever cancelled here
    (tmp_path / "cancelled").mkdir()
    for cell in ("a", "b"):
        (tmp_path / "cancelled" / cell).touch()
    run.want(["a", "c"])
    assert run.cancelled("b") and not run.cancelled("a") and run.cancelled_cells() == {"b"}
