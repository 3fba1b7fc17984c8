"""One owner a stage, whoever launches when."""

import multiprocessing
from pathlib import Path

import pytest

from harness.launch import NOTHING_TO_DO, OK
from tests.slurm.conftest import Cluster
from tests.slurm.toy_grid import FEW, GRID, ToyGrid
from tests.slurm.toy_stages import attempts
from tests.support.waiting import PATIENCE_S

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def check_that_every_stage_runs_once(toys: ToyGrid) -> None:
    """Lets the trunks go, and waits for all six cells."""
    toys.release(*toys.trunks)
    toys.wait_for(done=6)
    stages = {stage for path in toys.paths.values() for stage in path}
    assert {stage: len(attempts(toys.run, stage)) for stage in stages} == dict.fromkeys(stages, 1)
    toys.end()


def test_two_launches_at_once_and_one_later_run_every_stage_once(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toys = ToyGrid.of(cluster, tmp_path, monkeypatch)
    toys.set_behaviour("hold", *toys.trunks)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        codes = [pool.apply_async(toys.launch) for _ in range(2)]
        assert sorted(code.get(PATIENCE_S) for code in codes) == [OK, NOTHING_TO_DO]
    assert toys.launch() == NOTHING_TO_DO
    check_that_every_stage_runs_once(toys)


def test_a_grid_that_grew_while_it_ran_is_queued_behind_the_jobs_that_it_starts_from(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    toys = ToyGrid.of(cluster, tmp_path, monkeypatch, FEW)
    toys.set_behaviour("hold", *toys.trunks)
    assert toys.launch() == OK
    toys.rewrite(GRID)
    capfd.readouterr()
    assert toys.launch() == OK
    output = capfd.readouterr().out
    assert "2 cells, not submitted again" in output and "4 cells, queued behind them" in output and "4 jobs submitted, in 2 arrays" in output, output
    assert toys.launch() == NOTHING_TO_DO, "all of it is with jobs now"
    check_that_every_stage_runs_once(toys)
