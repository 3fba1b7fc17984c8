"""What is done about failures, beside the real daemons."""

from pathlib import Path

import pytest

from harness import status
from harness.launch import NOTHING_TO_DO, OK
from jobs.recovery.nodes import blame, faults, left_out
from tests.slurm.conftest import Cluster
from tests.slurm.toy_grid import FEW, ToyGrid
from tests.slurm.toy_stages import attempts
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def test_memory_is_halved_until_it_fits_and_a_mistake_in_the_code_waits_for_its_author(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    toys = ToyGrid.of(cluster, tmp_path, monkeypatch, FEW, tasks_per_node=2)
    large, wrong = toys.trunks
    toys.set_behaviour("memory", large)
    toys.set_behaviour("raise", wrong)
    assert toys.launch() == OK
    wait_until(lambda: toys.run.done(large) and toys.run.failure(wrong), "one stage to fit and the other to fail")
    tries = attempts(toys.run, large)
    assert [attempt["micro"] for attempt in tries] == ["32", "16"], "two ranks: SLURM has queued the job again"
    assert len({attempt["job"] for attempt in tries}) == 1 and [attempt["restarts"] for attempt in tries] == ["0", "1"]
    toys.wait_for(done=1, failed=1)
    capfd.readouterr()
    assert status.main([]) == 0
    output = " ".join(capfd.readouterr().out.split())
    assert "1 cell, 1 stage: ValueError at tests/slurm/toy_stages.py" in output and "a mistake in the code" in output and "--retry-failed" in output
    assert "1 stage ran out of memory and went on with smaller micro-batches" in output
    assert toys.launch() == NOTHING_TO_DO and len(attempts(toys.run, wrong)) == 1
    toys.end()


def test_a_job_that_slurm_ends_for_its_memory_goes_on_with_half_the_images_when_launched_again(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    toys = ToyGrid.of(cluster, tmp_path, monkeypatch, FEW.replace("seeds: [0, 1]", "seeds: 1"), nodes=2, stages_per_job=2)
    (trunk,) = toys.trunks
    toys.set_behaviour("greed", trunk)
    assert toys.launch() == OK
    wait_until(lambda: attempts(toys.run, trunk) and toys.counts() == {"open": 1}, "slurmstepd to kill the job")
    capfd.readouterr()
    assert status.main([]) == 0
    output = " ".join(capfd.readouterr().out.split())
    assert "1 cell, 1 stage: OUT_OF_MEMORY, on node[" in output and "memory limit" in output and "retried with half the micro-batch" in output, output
    assert toys.launch() == OK
    assert f"stage {trunk} ran out of memory: it goes on with micro-batches of 16 images, the global batch kept" in capfd.readouterr().out
    toys.wait_for(done=1)
    assert [attempt["micro"] for attempt in attempts(toys.run, trunk)] == ["32", "16"] and not toys.run.failure(trunk)
    assert status.main([]) == 0
    assert "1 stage ran out of memory and went on with smaller micro-batches" in " ".join(capfd.readouterr().out.split())
    toys.end()


def test_a_node_that_fails_twice_is_left_out_of_all_that_still_waits(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    toys = ToyGrid.of(cluster, tmp_path, monkeypatch, FEW)
    first, second = toys.trunks
    toys.set_behaviour("hold", first, second)
    monkeypatch.setattr("jobs.recovery.nodes.now", lambda: "2026-01-01T00:00:00+00:00")  # not in the second in which the jobs start
    for name in (f"node{number}" for number in range(1, 5)):
        blame(toys.run, name, "a-previous-job", "2026-01-01T00:00:00+00:00", "its first failure")
    assert toys.launch() == OK
    toys.wait_for(running=2)
    wait_until(lambda: attempts(toys.run, first), "the stage to begin")
    node = attempts(toys.run, first)[0]["node"]
    cluster.node("kill", node)
    try:
        wait_until(lambda: len(attempts(toys.run, first)) > 1, "the job to start elsewhere")
        assert attempts(toys.run, first)[1]["node"] != node
        assert toys.counts().get("failed", 0) == 0 and faults(toys.run)[node] == 2 and left_out(toys.run) == (node,)
        child = next(path[1] for path in toys.paths.values() if path[0] == first)
        shown = cluster.call("scontrol", "show", "job", str(toys.look().job_of[child].job))
        assert f"ExcNodeList={node}" in shown
        capfd.readouterr()
        assert status.main([]) == 0
        assert f"excluded for the rest of this grid: {node}" in " ".join(capfd.readouterr().out.split())
    finally:
        cluster.node("start", node)
    toys.release(first, second)
    toys.wait_for(done=2)
    toys.end()
