"""Small grids that really train, on the test cluster and undisturbed on this machine: both must end in the same weights."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jobs.experiment.records import read_record
from tests.support.processes import run_ranks
from tests.support.waiting import PATIENCE_S

if TYPE_CHECKING:
    from tests.slurm.conftest import Cluster

GRID = """
name: survives
data: {source: synthetic, samples: 256, loader: torch}
recipe: {epochs: 5, finetune_epochs: 0, batch_size: 32, zero_stage: ZERO}
models: [{name: vim_micro, depth: 1, dim: 16}]
pruning: [dense]
seeds: SEEDS
cluster: {CLUSTER, stages_per_job: STAGES, checkpoint_steps: 2, profile_s: 0.1, cache: CACHE}
"""
ONE_RANK = "kind: slurm, partition: main, mem_gb: 1, timeout_min: 10"
FOUR_RANKS = "kind: slurm, partition: main, nodes: 2, tasks_per_node: 2, mem_gb: 3, timeout_min: 10"
Undisturbed = Callable[[], dict[int, str | None]]  # by seed
Slow = tuple[int, float, int]  # attempts, seconds, step: see slow_training
HELD: Slow = (1, 0.0, 3)  # slowness: the first attempt waits after its third step, with a checkpoint of the second, for a test that disturbs it
PACED = 10**6  # a step that no attempt comes to


class Step(NamedTuple):
    """A training step that an attempt at a stage made."""

    attempt: int
    step: int
    node: str
    time: float


def grid(folder: Path, *, cluster: str, seeds: int, zero: int = 0, stages_per_job: int = 2, slow: dict[int, Slow] | None = None) -> Path:
    """A grid file in a new folder. `slow`: by seed, how many attempts pause for how many seconds after every step, and the step where they stay."""
    folder.mkdir(exist_ok=True)
    text = GRID
    for word, value in {"CLUSTER": cluster, "SEEDS": seeds, "ZERO": zero, "STAGES": stages_per_job, "CACHE": folder.parent / "cache"}.items():
        text = text.replace(word, str(value))
    (folder / "grid.yaml").write_text(text)
    for seed, words in (slow or {}).items():
        slowness(folder / "grid.yaml", seed).parent.mkdir(parents=True, exist_ok=True)
        slowness(folder / "grid.yaml", seed).write_text(" ".join(map(str, words)))
    return folder / "grid.yaml"


def run_of(path: Path) -> Path:
    """The run folder of a grid."""
    return path.parent / "runs" / "survives"


def slowness(path: Path, seed: int) -> Path:
    """The file that makes a seed slow while it is there."""
    return run_of(path) / "slow" / str(seed)


def start(path: Path, cluster: "Cluster", module: str, *options: str) -> "subprocess.Popen[str]":
    """A command as a user runs it, started beside a grid."""
    command = [sys.executable, "-m", module, str(path), *options]
    return subprocess.Popen(command, cwd=path.parent, env=cluster.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def command(path: Path, cluster: "Cluster", module: str, *options: str) -> "subprocess.CompletedProcess[str]":
    """A command as a user runs it, ended."""
    process = start(path, cluster, module, *options)
    out, err = process.communicate(timeout=PATIENCE_S)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def launch(path: Path, cluster: "Cluster", *options: str) -> "subprocess.CompletedProcess[str]":
    """The ended launch of a grid."""
    return command(path, cluster, "tests.slurm.slow_training", *options)


def trained_here(folder: Path, *, ranks: int = 1, **options: int) -> dict[int, str | None]:
    """Weights of a grid in `folder` that this machine trains undisturbed, without SLURM. Its ranks import nothing: they are forked."""
    path = grid(folder, cluster=f"kind: local, tasks_per_node: {ranks}", **options)
    run_ranks("tests.slurm.trained_grids:run_grid", ranks, folder)
    trained = weights(path)
    assert trained and None not in trained.values(), trained
    return trained


def run_grid(folder: Path) -> None:
    """Writes the data of the grid in `folder`, and runs its jobs one after another, as the rank that this process is."""
    from harness.grid.read import read_grid
    from jobs.data.prepare import prepare
    from jobs.experiment.run_folder import RunFolder
    from jobs.worker.job import run_job
    from tests.support.jobs import jobs_of

    path = folder / "grid.yaml"
    read = read_grid(path)
    prepare(read.cells[0].data, Path(read.cluster.cache))
    for job in jobs_of(read, RunFolder(run_of(path)))[0]:
        run_job(job)


def weights(path: Path) -> dict[int, str | None]:
    """Hash of the weights of every finished cell of a grid, by seed."""
    records = [read_record(file) for file in run_of(path).glob("cells/*/record.json")]
    return {record.seed: record.weights_sha256 for record in records}


def jobs(path: Path) -> dict[str, list[str]]:
    """The stages of every job that a launch has submitted."""
    return {job: stages for file in run_of(path).glob("jobs/*/stages.json") for job, stages in json.loads(file.read_text()).items()}


def steps(path: Path, stage: str) -> list[Step]:
    """Every step that any attempt at a stage made, first step first."""
    file = run_of(path) / "stages" / stage / "steps"
    lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
    return [Step(int(attempt), int(step), node, float(moment)) for attempt, step, node, moment in lines]


def field(cluster: "Cluster", job: str, name: str) -> str:
    """A field of `scontrol show job`."""
    return cluster.call("scontrol", "show", "job", job).partition(f" {name}=")[2].split()[0]
