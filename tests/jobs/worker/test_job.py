"""What a job does with errors and claims, without training anything."""

import threading
from pathlib import Path

import pytest

from jobs.cluster.claims import claimed
from jobs.experiment.run_folder import RunFolder
from jobs.parallel.engine import Ranks
from jobs.worker import job as worker
from jobs.worker.job import claimed_together, run_job
from tests.support.jobs import jobs_of, small_grid
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
