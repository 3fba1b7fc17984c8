"""One owner a stage, whoever launches when."""

import multiprocessing
from pathlib import Path

import pytest

from harness.launch import NOTHING_TO_DO, OK
from tests.slurm.conftest import Cluster
from tests.slurm.launches import Toys
from tests.slurm.toys import attempts

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def test_two_launches_at_once_and_one_later_run_every_stage_once(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toys = Toys.of(cluster, tmp_path, monkeypatch)
    toys.say("hold", *toys.trunks)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        codes = [pool.apply_async(toys.launch) for _ in range(2)]
        assert sorted(code.get(120) for code in codes) == [OK, NOTHING_TO_DO]
    assert toys.launch() == NOTHING_TO_DO
    for stage in toys.trunks:
        (toys.run.path / "toys" / stage).unlink()
    toys.wait_for(done=6)
    stages = {stage for path in toys.paths.values() for stage in path}
    assert {stage: len(attempts(toys.run, stage)) for stage in stages} == dict.fromkeys(stages, 1)
    toys.end()
