"""Cancelling beside the real daemons."""

from pathlib import Path

import pytest

from harness import cancel
from harness.launch import NOTHING_TO_DO
from tests.slurm.conftest import Cluster
from tests.slurm.toy_grid import ToyGrid
from tests.slurm.toy_stages import attempts
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def test_a_cell_goes_alone_a_grid_goes_whole_and_the_next_launch_goes_on(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    toys = ToyGrid.of(cluster, tmp_path, monkeypatch)
    toys.set_behaviour("hold", *toys.trunks)
    assert toys.launch() == 0
    toys.wait_for(running=6)
    assert toys.launch() == NOTHING_TO_DO, "all of it is with SLURM"
    assert "6 cells, not submitted again" in capfd.readouterr().out
    wait_until(lambda: all(attempts(toys.run, stage) for stage in toys.trunks), "the stages to begin")
    own = {str(job.job) for job in toys.look().job_of.values()}
    before = cluster.jobs()

    cell, (trunk, last) = next(iter(toys.paths.items()))
    job = str(toys.look().job_of[last].job)
    assert cancel.main([cell]) == cancel.OK
    output = capfd.readouterr().out
    assert f"cancelled 1 job ({job}) that waited" in output and f"stage {trunk}" in output and "need it" in output
    now = cluster.jobs()
    assert {name for name in own if before[name] != now.get(name)} == {job}, "no other job of this grid"

    assert cancel.main(["grid.yaml"]) == cancel.OK
    output = capfd.readouterr().out
    assert "cancelled 2 jobs" in output and "that ran" in output and "cancelled 5 jobs" in output and "that waited" in output
    toys.end()
    assert toys.counts() == {"open": 6}
    assert cancel.main(["grid.yaml"]) == cancel.NOTHING

    toys.release(*toys.trunks)
    assert toys.launch() == 0
    toys.wait_for(done=6)
    assert {len(attempts(toys.run, stage)) for stage in toys.trunks} == {2}
    toys.end()
