"""Jobs on a real SLURM that train nothing: our own way of a job, with a stage that does as the test says in place of training.

<run>/toys/<stage>    hold: the stage waits until the file is gone    raise: a mistake in the code    memory: no memory above 16 images
                      greed: above 16 images the last rank takes more memory than its job was given, until SLURM sees it
<stage>/attempts      one line for every time that the stage was begun: job, restarts, node, images of a forward pass
"""

import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from jobs.experiment.job import JobSpec, PlannedCell
from jobs.experiment.records import Environment, Record
from jobs.experiment.run_folder import RunFolder
from jobs.experiment.specs import ClusterSpec, StageSpec
from jobs.recovery.micro_batch import asked
from jobs.worker import job as runner
from jobs.worker.failures import identity

if TYPE_CHECKING:
    from jobs.parallel.engine import Ranks


def run_job(order: JobSpec) -> None:
    """Stands in for jobs.worker.job's in this process, which is the job's own. One rank needs no torch, which would take most of its time."""
    if order.cluster.ranks == 1:
        sys.modules["jobs.parallel.engine"] = SimpleNamespace(rendezvous=lambda threads: Alone())  # type: ignore[assignment]
    sys.modules["jobs.data.prepare"] = SimpleNamespace(prepare=lambda spec, cache: None)  # type: ignore[assignment]
    sys.modules["jobs.train.stage"] = SimpleNamespace(train_stage=train)  # type: ignore[assignment]
    runner.finish_cell = finish  # type: ignore[assignment]
    runner.run_job(order)


class Alone:
    """The only rank."""

    rank, local_rank, world = 0, 0, 1

    def broadcast(self, value: Any) -> Any:
        """What there is to be told."""
        return value

    def barrier(self) -> None:
        """Nobody to wait for."""


def train(spec: StageSpec, data: None, folder: Path, *, parent: Path | None, rewind: Path | None, ranks: "Ranks", cluster: ClusterSpec) -> None:
    """Does as the test says, then leaves an export."""
    micro = asked(spec.recipe, ranks.world)
    if ranks.rank == 0:
        told = [os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_RESTART_COUNT", "0"), os.environ["SLURMD_NODENAME"], str(micro)]
        with (folder / "attempts").open("a") as file:
            file.write(" ".join(map(str, told)) + "\n")
    toy = folder.parents[1] / "toys" / spec.id
    while (what := said(toy)) == "hold":
        time.sleep(0.2)
    if what == "raise":
        raise ValueError("a mistake in the code")
    if what == "memory" and micro > 16 and ranks.rank == 0:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
    if what == "greed" and micro > 16:
        taken = b"x" * (2 << 30) if ranks.rank == ranks.world - 1 else b""
        time.sleep(120)
        raise AssertionError(f"nobody minded {len(taken)} bytes")
    if what == "kill":
        os.kill(os.getpid(), 9)
    if ranks.rank == 0:
        (folder / "export").mkdir()
        (folder / "export" / "result.json").write_text(json.dumps({"train_s": 1.0, "steps": 10, "epochs": 1}))
    ranks.barrier()


def finish(run: RunFolder, order: JobSpec, path: PlannedCell, ranks: "Ranks", last: StageSpec) -> None:
    """A record without numbers."""
    surroundings = Environment(
        commit=None, dirty=None, python="", versions={}, host="", cpu="", gpu=None, ranks=1, threads=1, loader="", scan="", data_sha256=""
    )
    if ranks.rank == 0 and not run.record_path(path.cell.id).exists():
        run.write_record(Record(**identity(order, path), status="done", environment=surroundings, started="", finished=""))


def said(toy: Path) -> str:
    """What the test says of a stage."""
    try:
        return toy.read_text()
    except OSError:
        return ""


def attempts(run: RunFolder, stage: str) -> list[dict[str, Any]]:
    """Every time that a stage was begun."""
    path = run.stage_dir(stage) / "attempts"
    lines = path.read_text().splitlines() if path.exists() else []
    return [dict(zip(("job", "restarts", "node", "micro"), line.split(), strict=True)) for line in lines]
