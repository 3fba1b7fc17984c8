"""Jobs that are disturbed in every way a cluster knows end in the same weights, bit for bit, as undisturbed ones on one machine."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.launch import OK, SOME_FAILED
from harness.records import read_record
from jobs.slurm_arrays import submit_array
from jobs.specs import ClusterSpec
from tests.slurm import tasks
from tests.slurm.conftest import SCRIPTS, Cluster, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
SMALL = ClusterSpec(kind="slurm", timeout_min=10, mem_gb=0.5, slurm={"partition": "main"})
GRID = """
name: survives
data: {source: synthetic, samples: 256, loader: torch}
recipe: {epochs: 5, finetune_epochs: 0, batch_size: 32, zero_stage: ZERO}
models: [{name: vim_micro, depth: 1, dim: 16}]
pruning: [dense]
seeds: SEEDS
cluster: {CLUSTER, stages_per_job: PACK, checkpoint_steps: 2, timeout_min: 10, cache: CACHE}
"""
ONE_RANK = "kind: slurm, partition: main, mem_gb: 1"
FOUR_RANKS = "kind: slurm, partition: main, nodes: 2, tasks_per_node: 2, mem_gb: 3"


def grid(folder: Path, *, cluster: str, seeds: int, zero: int = 0, pack: int = 2) -> Path:
    """A grid file in a new folder."""
    folder.mkdir()
    text = GRID
    for word, value in {"CLUSTER": cluster, "SEEDS": seeds, "ZERO": zero, "PACK": pack, "CACHE": folder.parent / "cache"}.items():
        text = text.replace(word, str(value))
    (folder / "grid.yaml").write_text(text)
    return folder / "grid.yaml"


def launch(path: Path, cluster: Cluster, *options: str) -> "subprocess.CompletedProcess[str]":
    """The ended launch of a grid, beside it."""
    command = [sys.executable, "-m", "harness.launch", str(path), *options]
    return subprocess.run(command, cwd=path.parent, env=cluster.environment, capture_output=True, text=True, timeout=240, check=False)


def weights(path: Path) -> dict[int, str | None]:
    """Hash of the weights of every finished cell of a grid, by seed."""
    found = [read_record(record) for record in path.parent.glob("runs/survives/cells/*/record.json")]
    return {record.seed: record.weights_sha256 for record in found}


def jobs(path: Path) -> dict[str, list[str]]:
    """The stages of every job that a launch has submitted."""
    return {job: stages for file in path.parent.glob("runs/survives/jobs/*/stages.json") for job, stages in json.loads(file.read_text()).items()}


def field(cluster: Cluster, job: str, name: str) -> str:
    """What SLURM says of a job."""
    return cluster.call("scontrol", "show", "job", job).partition(f" {name}=")[2].split()[0]


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
def short_job(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """Folder and id of a job whose time limit, a minute, is over before it is done."""
    folder = tmp_path_factory.mktemp("short")
    (folder / "jobs").mkdir()
    spec = replace(SMALL, timeout_min=1, slurm={"partition": "main", "signal_delay_s": 20})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
        patch.setenv("PYTHONPATH", cluster.environment["PYTHONPATH"])
        yield folder, submit_array(spec, folder / "jobs", tasks.step, {0: {"folder": str(folder)}}, name="short", headway=tasks.starts)[0]


def test_requeueing_signals_preemption_and_a_dead_slurmd_leave_the_weights_as_they_would_have_been(
    cluster: Cluster, tmp_path: Path, short_job: tuple[Path, str]
) -> None:
    path = grid(tmp_path / "disturbed", cluster=ONE_RANK, seeds=4)
    launched = launch(path, cluster)
    assert launched.returncode == OK and "4 jobs submitted, in 1 arrays" in launched.stdout, launched.stdout + launched.stderr
    how = dict(zip(jobs(path), ("requeue", "signal", "preempt", "abandon"), strict=True))
    disturbed: dict[str, str] = {}  # job -> its node

    def disturb_those_with_a_checkpoint() -> bool:
        for job, (stage, *_) in jobs(path).items():
            if job not in disturbed and list(path.parent.glob(f"runs/survives/stages/{stage}/checkpoints/step-*")):
                disturbed[job] = disturb(cluster, job, how[job])
        return len(disturbed) == 4

    wait_until(disturb_those_with_a_checkpoint, "a checkpoint of every job")
    lost = next(disturbed[job] for job in how if how[job] == "abandon")
    undisturbed = grid(tmp_path / "undisturbed", cluster="kind: local, max_parallel: 1", seeds=4, pack=8)
    assert launch(undisturbed, cluster).returncode == OK
    wait_until(lambda: len(weights(path)) == 4, "all four cells")
    assert all(int(field(cluster, job, "Restarts")) >= 1 for job in how if how[job] != "abandon")
    cluster.node("start", lost)
    wait_until(lambda: all(cluster.jobs()[job] == "COMPLETED" for job in how), "all four jobs to end well")
    assert weights(path) == weights(undisturbed)


def test_two_nodes_of_two_ranks_lose_a_node_and_end_as_four_ranks_on_one_machine(cluster: Cluster, tmp_path: Path) -> None:
    path = grid(tmp_path / "disturbed", cluster=FOUR_RANKS, seeds=1, zero=2)
    assert launch(path, cluster).returncode == OK
    wait_until(lambda: list(path.parent.glob("runs/survives/stages/*/checkpoints/step-*")), "a checkpoint")
    (job,) = jobs(path)
    lost = "node" + field(cluster, job, "NodeList").removeprefix("node[")[0]
    cluster.node("kill", lost)
    try:
        undisturbed = grid(tmp_path / "undisturbed", cluster="kind: local, max_parallel: 1, tasks_per_node: 4", seeds=1, zero=2)
        assert launch(undisturbed, cluster).returncode == OK
        wait_until(lambda: weights(path), "the cell")
    finally:
        cluster.node("start", lost)
    wait_until(lambda: cluster.jobs()[job] == "COMPLETED", "the job")
    assert int(field(cluster, job, "Restarts")) >= 1 and lost not in field(cluster, job, "NodeList")
    assert weights(path) == weights(undisturbed)


def test_a_full_disk_is_said_and_costs_nothing(cluster: Cluster, small_disk: Path, tmp_path: Path) -> None:
    path = grid(tmp_path / "grid", cluster=ONE_RANK, seeds=1)
    runs = small_disk / "runs"
    assert launch(path, cluster, "--runs", str(runs)).returncode == OK
    wait_until(lambda: list(runs.glob("survives/stages/*/checkpoints/step-*")), "a checkpoint")
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space left"):
        filler.write_bytes(b"0" * (64 << 20))
    (job,) = json.loads(next(runs.glob("survives/jobs/1/stages.json")).read_text())
    wait_until(lambda: cluster.jobs()[job] == "FAILED", "the job to end")
    refused = launch(path, cluster, "--runs", str(runs))
    assert refused.returncode == SOME_FAILED and "free space" in refused.stderr, refused.stdout + refused.stderr
    filler.unlink()
    assert not list(runs.glob("survives/cells/*/record.json")) and not list(runs.glob("survives/stages/*/failure.json"))
    assert launch(path, cluster, "--runs", str(runs)).returncode == OK
    wait_until(lambda: list(runs.glob("survives/cells/*/record.json")), "the cell")
    assert read_record(next(runs.glob("survives/cells/*/record.json"))).status == "done"


def test_jobs_run_and_submissions_wait_while_the_controller_is_down(cluster: Cluster, tmp_path: Path, short_job: tuple[Path, str]) -> None:
    def submit(name: str) -> dict[int, str]:
        (tmp_path / name).mkdir()
        return submit_array(SMALL, tmp_path / name, tasks.run_task, {0: {"folder": str(tmp_path), "name": name, "until": "go"}}, name=name)

    running = submit("running")
    wait_until((tmp_path / "running.starts").exists, "a job to start")
    cluster.call("kill", (cluster.root / "run" / "slurmctld.pid").read_text().strip())
    wait_until(lambda: "DOWN" in cluster.call("scontrol", "ping", check=False), "the controller to end")
    late: dict[int, str] = {}
    submitting = threading.Thread(target=lambda: late.update(submit("late")))
    submitting.start()
    (tmp_path / "go").touch()
    wait_until((tmp_path / "running.end").exists, "the job to end without a controller")
    assert submitting.is_alive() and not late
    cluster.call(SCRIPTS / "up.sh")
    submitting.join(60)
    wait_until(lambda: cluster.jobs()[running[0]] == cluster.jobs()[late[0]] == "COMPLETED", "both jobs to be known as done")


def test_a_time_limit_only_interrupts(cluster: Cluster, short_job: tuple[Path, str]) -> None:
    folder, job = short_job
    wait_until(lambda: cluster.jobs()[job] == "COMPLETED", "a job that is longer than its time limit", 240)
    assert tasks.starts({"folder": str(folder)}) == 2
