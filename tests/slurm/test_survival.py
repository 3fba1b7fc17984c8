"""Jobs that are disturbed in every way a cluster knows end in the same weights, bit for bit, as undisturbed ones on one machine."""

from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

from harness.launch import OK
from tests.slurm.conftest import Cluster, processes
from tests.slurm.trained_grids import (
    FOUR_RANKS,
    HELD,
    ONE_RANK,
    PACED,
    Undisturbed,
    command,
    field,
    grid,
    jobs,
    launch,
    run_of,
    slowness,
    steps,
    trained_here,
    weights,
)
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
ONE_MINUTE = "kind: slurm, partition: main, mem_gb: 1, timeout_min: 1, signal_delay_s: 5, nodelist: node4"  # a node that no other test disturbs


def disturb(cluster: Cluster, job: str, how: str) -> str:
    """The node of a running job that is disturbed."""
    node = field(cluster, job, "NodeList")
    if how == "requeue":
        cluster.call("scontrol", "requeue", job)
    elif how == "signal":
        cluster.call("scancel", "--signal=USR2", job)
    elif how == "preempt":
        cluster.call("sbatch", "--partition=high", f"--nodelist={node}", "--exclusive", "--mem=100", "--output=/dev/null", "--wrap=true")
    else:  # slurmd dies; what runs there goes on, and may end before SLURM has noticed
        cluster.call("kill", "-9", (cluster.root / "run" / f"slurmd.{node}.pid").read_text().strip())
    return node


@pytest.fixture(scope="module")
def short_of_time(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A launched grid whose job needs more than twice its time limit, in every attempt. It runs while other tests run."""
    path = grid(tmp_path_factory.mktemp("short"), cluster=ONE_MINUTE, seeds=1, slow={0: (1000, 3.0, PACED)})
    launched = launch(path, cluster)
    assert launched.returncode == OK, launched.stdout + launched.stderr
    yield path


@pytest.fixture(scope="module")
def four_ranks(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Trains seed 0 by four ranks on this machine, the first time that it is called; its weights."""
    folder = tmp_path_factory.mktemp("four-ranks")
    return cache(lambda: trained_here(folder, ranks=4, seeds=1, zero=2))


def test_requeueing_signals_preemption_and_a_dead_slurmd_leave_the_weights_as_they_would_have_been(
    cluster: Cluster, tmp_path: Path, short_of_time: Path, undisturbed: Undisturbed
) -> None:
    slow = {0: (2, 0.0, 3), 1: HELD, 2: HELD, 3: HELD}  # none ends undisturbed
    path = grid(tmp_path / "disturbed", cluster=ONE_RANK, seeds=4, slow=slow)
    launched = launch(path, cluster)
    assert launched.returncode == OK and "4 jobs submitted, in 1 array;" in launched.stdout, launched.stdout + launched.stderr
    how = dict(zip(jobs(path), ("requeue", "signal", "preempt", "abandon"), strict=True))
    disturbed: dict[str, str] = {}  # job -> its node

    def disturb_those_with_a_checkpoint() -> bool:
        for job, (stage, *_) in jobs(path).items():
            ready = how[job] != "abandon" or all(begun_again(path, each) for each in how if how[each] != "abandon")
            folder = run_of(path) / "stages" / stage
            if ready and job not in disturbed and (list(folder.glob("checkpoints/step-*")) or (folder / "export").exists()):  # it has begun, or ended
                disturbed[job] = disturb(cluster, job, how[job])
        return len(disturbed) == 4

    # slurmd dies last: SLURM would send the others to its node until it has noticed
    wait_until(disturb_those_with_a_checkpoint, "a checkpoint of every job, and a second attempt at the others")
    lost = next(disturbed[job] for job in how if how[job] == "abandon")
    again = next(job for job in how if how[job] == "requeue")
    cluster.call("scancel", "--signal=KILL", f"{again}.0", check=False)  # late, as by the srun of a first attempt that lost a node
    slowness(path, 0).unlink()
    alone = undisturbed()
    wait_until(lambda: len(weights(path)) == 4, "all four cells")
    assert all(int(field(cluster, job, "Restarts")) >= 1 for job in how if how[job] != "abandon")
    cluster.node("start", lost)
    wait_until(lambda: all(cluster.jobs()[job] == "COMPLETED" for job in how), "all four jobs to end well")
    assert weights(path) == alone


def begun_again(path: Path, job: str) -> bool:
    """True once a second attempt at a job has made a step."""
    return any(step.attempt for step in steps(path, jobs(path)[job][0]))


def test_two_nodes_of_two_ranks_lose_a_node_and_end_as_four_ranks_on_one_machine(
    cluster: Cluster, tmp_path: Path, short_of_time: Path, four_ranks: Undisturbed
) -> None:
    path = grid(tmp_path / "disturbed", cluster=FOUR_RANKS, seeds=1, zero=2, slow={0: HELD})
    assert launch(path, cluster).returncode == OK
    wait_until(lambda: list(run_of(path).glob("stages/*/checkpoints/step-*")), "a checkpoint")
    (job,) = jobs(path)
    lost = "node" + field(cluster, job, "NodeList").removeprefix("node[")[0]
    cluster.node("kill", lost)
    try:
        alone = four_ranks()
        wait_until(lambda: weights(path), "the cell")
    finally:
        cluster.node("start", lost)
    wait_until(lambda: cluster.jobs()[job] == "COMPLETED", "the job")
    assert int(field(cluster, job, "Restarts")) >= 1 and lost not in field(cluster, job, "NodeList")
    assert weights(path) == alone


def come_back(cluster: Cluster, path: Path, node: str) -> str:
    """The job of a launch whose node `node` has lost its slurmd, not its processes, and has come back while the job waits for it."""
    assert launch(path, cluster).returncode == OK
    wait_until(lambda: list(run_of(path).glob("stages/*/checkpoints/step-*")), "a checkpoint")
    (job,) = jobs(path)
    cluster.call("kill", "-9", (cluster.root / "run" / f"slurmd.{node}.pid").read_text().strip())
    wait_until(lambda: cluster.jobs()[job] == "PENDING", "SLURM to notice")
    wait_until(
        lambda: not processes(job, "SLURMD_NODENAME=node2") and not slurmstepds(cluster, job, "node2"), "the attempt on its script's node to end"
    )
    cluster.node("start", node)
    return job


def slurmstepds(cluster: Cluster, job: str, node: str) -> list[Path]:
    """The sockets of SLURM's own processes for a job on a node. They outlive the job's, and slurmd, when it returns, kills the job for their sake."""
    return list((cluster.root / "spool" / node).glob(f"{node}_{job}.*"))


def test_a_job_that_waits_for_its_only_node_gets_it_again_when_slurmd_is_back(cluster: Cluster, tmp_path: Path, undisturbed: Undisturbed) -> None:
    path = grid(tmp_path / "disturbed", cluster=f"{ONE_RANK}, nodelist: node2", seeds=1, slow={0: HELD})
    job = come_back(cluster, path, "node2")
    wait_until(lambda: cluster.jobs()[job] == "COMPLETED", "the job")
    assert weights(path) == {0: undisturbed()[0]}


@pytest.mark.long
def test_a_job_that_waits_for_its_second_node_gets_it_again_when_slurmd_is_back(cluster: Cluster, tmp_path: Path, four_ranks: Undisturbed) -> None:
    path = grid(tmp_path / "disturbed", cluster=f"{FOUR_RANKS}, nodelist: 'node[2-3]'", seeds=1, zero=2, slow={0: HELD})
    job = come_back(cluster, path, "node3")
    alone = four_ranks()
    wait_until(lambda: cluster.jobs()[job] == "COMPLETED", "the job")
    assert weights(path) == alone


def test_a_time_limit_reached_again_and_again_only_interrupts(cluster: Cluster, short_of_time: Path, undisturbed: Undisturbed) -> None:
    ((job, (stage, _)),) = jobs(short_of_time).items()
    wait_until(lambda: cluster.jobs()[job] == "COMPLETED", "a job that is longer than its time limit")
    log = next(run_of(short_of_time).glob(f"jobs/*/{job}_0_log.out")).read_text()
    assert log.count("Job has timed out") == int(field(cluster, job, "Restarts")) >= 2
    made = steps(short_of_time, stage)
    begun = [step.step for before, step in pairwise(made) if step.attempt != before.attempt]
    assert begun == sorted(begun) and begun[-1] > 1, "it went on from checkpoints"
    output = command(short_of_time, cluster, "harness.status").stdout
    assert "1 of 1 cells done" in output and not list(run_of(short_of_time).glob("stages/*/failure.json")), output
    assert weights(short_of_time) == {0: undisturbed()[0]}
