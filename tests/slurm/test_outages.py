"""A disk, a network and a controller that fail for a while: nothing is lost, nothing is done twice, and the cause is reported."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.launch import OK, SOME_FAILED
from jobs.experiment.records import read_record
from tests.slurm.conftest import Cluster
from tests.slurm.trained_grids import ONE_RANK, Undisturbed, command, field, grid, jobs, launch, run_of, slowness, start, steps, weights
from tests.support.waiting import PATIENCE_S, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
MINUTE_S = 60.0


@pytest.fixture(scope="module")
def cut_off(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str, float]]:
    """A grid whose job is slow and runs on a node that was cut off the network; that node; and when it was. Nodes do not see each other's locks."""
    if cluster.mode != "netns":
        pytest.skip(f"nodes have a network of their own in mode netns alone; this is mode {cluster.mode}")
    path = grid(tmp_path_factory.mktemp("cut"), cluster=ONE_RANK, seeds=1, slow={0: (1, 4.0, 30)})
    (run_of(path) / "unlocked").touch()
    assert launch(path, cluster).returncode == OK
    ((job, (stage, _)),) = jobs(path).items()
    wait_until(lambda: steps(path, stage), "a first step")
    node = field(cluster, job, "NodeList")
    cluster.node("cut", node)
    yield path, node, time.time()
    cluster.node("mend", node)


def test_a_full_disk_is_said_and_costs_nothing(cluster: Cluster, small_disk: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if cluster.mode == "netns":
        request.getfixturevalue("cut_off")  # SLURM takes its time to notice
    path = grid(tmp_path / "grid", cluster=ONE_RANK, seeds=1)
    runs = small_disk / "runs"
    held = runs / "survives" / "slow" / "0"
    held.parent.mkdir(parents=True)
    held.write_text("1 0 3")  # so that it does not end before the disk is full
    assert launch(path, cluster, "--runs", str(runs)).returncode == OK
    wait_until(lambda: list(runs.glob("survives/stages/*/checkpoints/step-*")), "a checkpoint")
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space left"):
        filler.write_bytes(b"0" * (64 << 20))
    held.unlink()
    (job,) = json.loads(next(runs.glob("survives/jobs/1/stages.json")).read_text())
    wait_until(lambda: cluster.jobs()[job] == "FAILED", "the job to end")
    refused = launch(path, cluster, "--runs", str(runs))
    assert refused.returncode == SOME_FAILED and "free space" in refused.stderr, refused.stdout + refused.stderr
    filler.unlink()
    assert not list(runs.glob("survives/cells/*/record.json")) and not list(runs.glob("survives/stages/*/failure.json"))
    assert launch(path, cluster, "--runs", str(runs)).returncode == OK
    wait_until(lambda: list(runs.glob("survives/cells/*/record.json")), "the cell")
    assert read_record(next(runs.glob("survives/cells/*/record.json"))).status == "done"


def test_what_a_cut_off_node_still_runs_ends_before_its_job_goes_on_elsewhere(
    cluster: Cluster, cut_off: tuple[Path, str, float], undisturbed: Undisturbed
) -> None:
    path, node, cut = cut_off
    ((job, (stage, _)),) = jobs(path).items()
    alone = undisturbed()
    wait_until(lambda: weights(path), "the cell")
    assert field(cluster, job, "NodeList") != node
    output = command(path, cluster, "harness.status").stdout
    assert f"nodes that failed: {node} (1)" in output and "1 of 1 cells done" in output, output
    cluster.node("mend", node)
    wait_until(lambda: cluster.jobs()[job] == "COMPLETED", "SLURM to know that the job has ended")
    wait_until(lambda: node in cluster.call("sinfo", "--noheader", "--states=idle", "--Node"), "the node to be back")
    made = steps(path, stage)
    left = [step for step in made if step.attempt == 0]
    assert {step.node for step in left} == {node} and left[-1].time > cut, "it lived on, as the log of the next attempt says too"
    assert [step.attempt for step in made] == sorted(step.attempt for step in made), "never two at once"
    log = next(run_of(path).glob(f"jobs/*/{job}_0_log.out")).read_text()
    assert f"{stage} is held by a previous attempt at this job, SLURM job {job} on {node}: that attempt is asked to exit" in log
    assert "SLURM has given up this attempt, and this process exits" in log
    assert weights(path) == {0: alone[0]} and not list(run_of(path).glob("stages/*/failure.json"))


@pytest.mark.long
def test_a_minute_without_a_controller_is_waited_for_and_loses_nothing(cluster: Cluster, tmp_path: Path, undisturbed: Undisturbed) -> None:
    path = grid(tmp_path / "grid", cluster=ONE_RANK, seeds=2, slow={0: (1, 0.0, 1), 1: (1, 0.0, 1)})
    undisturbed()  # trained before the controller goes: what waits for it gives up after a while
    assert launch(path, cluster).returncode == OK
    wait_until(lambda: all(steps(path, stage) for stage, _ in jobs(path).values()), "a step of both jobs")
    cluster.stop_controller()
    gone = time.monotonic()
    grid(path.parent, cluster=ONE_RANK, seeds=3)  # it grows
    late, status = start(path, cluster, "tests.slurm.slow_training"), start(path, cluster, "harness.status")
    slowness(path, 0).unlink()
    wait_until(lambda: weights(path), "a job to end without a controller")
    wait_until(lambda: time.monotonic() - gone > MINUTE_S, "a minute")
    assert late.poll() is None and status.poll() is None and not weights(path).keys() - {0}
    cluster.start_controller()
    slowness(path, 1).unlink()
    for process, words in ((late, "1 of 3 cells to run"), (status, "1 of 2 cells done")):
        out, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == OK and words in out and "SLURM's controller does not answer; asking again" in err, out + err
    wait_until(lambda: len(weights(path)) == 3, "all cells")
    wait_until(lambda: {cluster.jobs()[job] for job in jobs(path)} == {"COMPLETED"}, "SLURM to know that all jobs have ended")
    assert weights(path) == {seed: undisturbed()[seed] for seed in range(3)}
    made = {stage: [step.step for step in steps(path, stage)] for stage, _ in jobs(path).values()}
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in made.values()) and len(made) == len(jobs(path)) == 3, "nothing ran twice"
