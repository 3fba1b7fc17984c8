"""What a job does with errors and claims, without training anything."""

import threading
from pathlib import Path

import pytest

from jobs.cluster.claims import claimed
from jobs.experiment.job import JobSpec
from jobs.experiment.records import Failure
from jobs.experiment.run_folder import RunFolder
from jobs.parallel.engine import Ranks
from jobs.worker import job as worker
from jobs.worker.failures import BlockedError
from jobs.worker.job import claimed_together, run_job
from tests.support.jobs import finished, jobs_of, small_grid
from tests.support.one_stage import OneStage, one_rank
from tests.support.waiting import PATIENCE_S


def test_ranks_wait_for_a_claim_without_holding_a_collective_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "CLAIM_POLL_S", 0.01)
    asked: list[bool] = []

    class Counting(Ranks):
        def broadcast(self, value: bool) -> bool:
            asked.append(value)
            if len(asked) == 3:
                release.set()
            return value

    release, held = threading.Event(), threading.Event()

    def holder() -> None:
        with claimed(tmp_path / "a"):
            held.set()
            release.wait(PATIENCE_S)

    thread = threading.Thread(target=holder)
    thread.start()
    assert held.wait(PATIENCE_S)
    alone = one_rank()
    with claimed_together(tmp_path / "a", Counting(rank=0, local_rank=0, world=1, device=alone.device)):
        assert asked[-1] and asked.count(False) >= 3
    thread.join()


def test_a_stage_of_cancelled_cells_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path / "run")
    orders, paths = jobs_of(small_grid(tmp_path), run)
    (run.path / "cancelled").mkdir(parents=True)
    trunk = orders[0].stages[0].id
    stage = OneStage(None)
    monkeypatch.setattr(worker, "run_stage", stage)
    behind = [path for path in paths if trunk in path.stages]
    for path in behind:
        (run.path / "cancelled" / path.cell.id).touch()
    run_job(orders[0])
    assert stage.micros == []
    (run.path / "cancelled" / behind[0].cell.id).unlink()
    run_job(orders[0])
    assert run.done(trunk), "one cell wants it still"


class Trained(Exception):
    """A stage was trained, or a cell measured."""


def trained(*_: object, **__: object) -> None:
    raise Trained


@pytest.fixture
def nothing_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Preparing data, training and measuring raise Trained."""
    monkeypatch.setattr("jobs.data.prepare.ready", lambda *_, **__: None)
    monkeypatch.setattr("jobs.train.stage.train_stage", trained)
    monkeypatch.setattr(worker, "measure_cell", trained)


def run_first_stage(run: RunFolder, job: JobSpec) -> None:
    worker.run_stage(run, job.stages[0], job.cluster, one_rank())


@pytest.mark.usefixtures("nothing_is_trained")
def test_a_stage_is_trained_unless_it_is_done_or_has_failed(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    jobs, _ = jobs_of(small_grid(tmp_path), run)
    first, second = (job for job in jobs if job.stages[0].parent is None)
    with pytest.raises(Trained):
        run_first_stage(run, first)
    run.write_failure(first.stages[0].id, Failure(kind="ValueError", message="no", stage=first.stages[0].id, traceback=""))
    run.export_dir(second.stages[0].id).mkdir(parents=True)
    before = {path: path.read_bytes() for path in run.path.rglob("*.json")}
    for job in (first, second):
        run_first_stage(run, job)
    assert {path: path.read_bytes() for path in run.path.rglob("*.json")} == before


@pytest.mark.usefixtures("nothing_is_trained")
def test_a_stage_whose_parent_has_left_no_weights_is_not_trained(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    child = next(job for job in jobs_of(small_grid(tmp_path), run)[0] if job.stages[0].parent)
    with pytest.raises(BlockedError, match=f"stage {child.stages[0].parent}, which this one needs, has no weights"):
        run_first_stage(run, child)
    run.export_dir(child.stages[0].parent or "").mkdir(parents=True)
    with pytest.raises(Trained):
        run_first_stage(run, child)


@pytest.mark.usefixtures("nothing_is_trained")
@pytest.mark.parametrize("status", ["done", "failed"])
def test_a_cell_with_a_record_is_not_measured_again(tmp_path: Path, status: str) -> None:
    run = RunFolder(tmp_path / "run")
    jobs, cells = jobs_of(small_grid(tmp_path), run)
    last = next(job for job in jobs if job.stages[-1].id == cells[0].stages[-1])
    run.export_dir(cells[0].stages[-1]).mkdir(parents=True)
    with pytest.raises(Trained):
        worker.finish_cell(run, last, cells[0], one_rank(), last.stages[-1])
    run.write_record(finished(last, cells[0]))
    path = run.record_path(cells[0].cell.id)
    path.write_text(path.read_text().replace('"done"', f'"{status}"'))
    before = path.read_bytes()
    worker.finish_cell(run, last, cells[0], one_rank(), last.stages[-1])
    assert path.read_bytes() == before
