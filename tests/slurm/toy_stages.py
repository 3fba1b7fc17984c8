"""Toy stages for a real SLURM: jobs run as always, but instead of training, a stage does what a file of the test says.

<run>/toys/<stage>    read: hold (the stage waits until the file is gone), raise (a mistake in the code), memory (no memory for more than 16 images),
                      greed (with more than 16 images, the last rank takes more memory than its job has, until SLURM sees it), kill (the process dies)
<stage>/attempts      written: a line for every attempt at the stage: job, restarts, node, images of a forward pass
"""

import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from jobs.experiment.job import JobSpec, PlannedCell
from jobs.experiment.records import Environment
from jobs.experiment.run_folder import RunFolder
from jobs.experiment.specs import ClusterSpec, StageSpec
from jobs.recovery.micro_batch import recipe_micro_batch
from jobs.worker import job as runner
from jobs.worker.cell import cell_record
from tests.support.waiting import PATIENCE_S

if TYPE_CHECKING:
    from jobs.parallel.engine import Ranks


def run_job(job: JobSpec) -> None:
    """The job of jobs.worker.job with toy stages, in a process of its own. One rank needs no torch, whose import would take most of its time."""
    if job.cluster.ranks == 1:
        sys.modules["jobs.parallel.devices"] = SimpleNamespace(GpuMissing=GpuMissing)  # type: ignore[assignment]
        sys.modules["jobs.parallel.memory"] = SimpleNamespace(free_unused=lambda: None)  # type: ignore[assignment]
        sys.modules["jobs.parallel.engine"] = SimpleNamespace(rendezvous=lambda threads, gpus: Alone())  # type: ignore[assignment]
    sys.modules["jobs.data.prepare"] = SimpleNamespace(ready=lambda spec, cache, by_content: None)  # type: ignore[assignment]
    sys.modules["jobs.train.stage"] = SimpleNamespace(train_stage=train)  # type: ignore[assignment]
    runner.finish_cell = finish  # type: ignore[assignment]
    runner.run_job(job)


class GpuMissing(RuntimeError):
    """Never raised: no toy is promised a GPU."""


class Alone:
    """The only rank."""

    rank, local_rank, world = 0, 0, 1

    def broadcast(self, value: Any) -> Any:
        """The value itself."""
        return value

    def barrier(self) -> None:
        """Returns at once: no other rank is there."""

    def finish(self) -> None:
        """Returns at once."""


def train(
    spec: StageSpec,
    data: None,
    folder: Path,
    *,
    parent: Path | None,
    rewind: Path | None,
    teacher: Path | None,
    ranks: "Ranks",
    cluster: ClusterSpec,
) -> None:
    """Does what the test has set, then leaves an export."""
    micro = recipe_micro_batch(spec.recipe, ranks.world)
    if ranks.rank == 0:
        attempt = [os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_RESTART_COUNT", "0"), os.environ["SLURMD_NODENAME"], str(micro)]
        with (folder / "attempts").open("a") as file:
            file.write(" ".join(map(str, attempt)) + "\n")
    file = folder.parents[1] / "toys" / spec.id
    while (behaviour := behaviour_in(file)) == "hold":
        time.sleep(0.2)
    if behaviour == "raise":
        raise ValueError("a mistake in the code")
    if behaviour == "memory" and micro > 16 and ranks.rank == 0:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
    if behaviour == "greed" and micro > 16:
        taken = b"x" * (2 << 30) if ranks.rank == ranks.world - 1 else b""
        time.sleep(PATIENCE_S)
        raise AssertionError(f"SLURM did not mind {len(taken)} bytes")
    if behaviour == "kill":
        os.kill(os.getpid(), 9)
    if ranks.rank == 0:
        (folder / "export").mkdir()
        (folder / "export" / "result.json").write_text(json.dumps({"train_s": 1.0, "steps": 10, "epochs": 1}))
    ranks.barrier()


def finish(run: RunFolder, job: JobSpec, planned: PlannedCell, ranks: "Ranks", last: StageSpec) -> None:
    """A record without numbers."""
    surroundings = Environment(
        commit=None, dirty=None, python="", versions={}, host="", cpu="", gpu=None, ranks=1, threads=1, loader="", scan="", data_sha256=""
    )
    if ranks.rank == 0 and not run.record_path(planned.cell.id).exists():
        run.write_record(cell_record(job, planned, surroundings, started=""))


def behaviour_in(file: Path) -> str:
    """What the test has set for a stage; empty if it is to end well."""
    try:
        return file.read_text()
    except OSError:
        return ""


def attempts(run: RunFolder, stage: str) -> list[dict[str, Any]]:
    """Every attempt at a stage, first attempt first."""
    path = run.stage_dir(stage) / "attempts"
    lines = path.read_text().splitlines() if path.exists() else []
    return [dict(zip(("job", "restarts", "node", "micro"), line.split(), strict=True)) for line in lines]
