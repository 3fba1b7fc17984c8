"""What a job does with errors and claims, without training anything."""

import threading
from pathlib import Path

import pytest

from jobs.cluster.claims import claimed
from jobs.experiment.run_folder import RunFolder
from jobs.experiment.specs import ClusterSpec, StageSpec
from jobs.parallel.engine import Ranks, rendezvous
from jobs.worker import job as worker
from jobs.worker.job import claimed_together, run_job
from tests.support.jobs import jobs_of, small_grid


def one_rank() -> Ranks:
    """This process alone."""
    return rendezvous(threads=1)


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
            release.wait(10)

    thread = threading.Thread(target=holder)
    thread.start()
    held.wait(10)
    alone = one_rank()
    with claimed_together(tmp_path / "a", Counting(rank=0, local_rank=0, world=1, device=alone.device)):
        assert asked[-1] and asked.count(False) >= 3
    thread.join()


class OneStage:
    """Stands in for training: fails as it is told, attempt by attempt, and notes the micro-batches it was run with."""

    def __init__(self, *errors: Exception | None) -> None:
        self.errors, self.micros = list(errors), []

    def __call__(self, run: RunFolder, spec: StageSpec, cluster: ClusterSpec, ranks: Ranks) -> None:
        self.micros.append(spec.recipe.micro_batch_size)
        error = self.errors.pop(0)
        if error is not None:
            raise error
        (run.stage_dir(spec.id) / "export").mkdir(parents=True)


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
