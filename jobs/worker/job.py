"""What a job does, on one screen: for each of its stages, claim, train, mark done; for each cell that a stage completes, measure and record.

The same functions run on a SLURM node, in a local job and inside `reproduce`.
"""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.cluster.claims import claimed
from jobs.cluster.slurm import restarts, this_job
from jobs.experiment.files import sha256_of, write_json
from jobs.experiment.index import stage_entry
from jobs.experiment.job import JobSpec, PlannedCell
from jobs.experiment.records import Record, now
from jobs.experiment.run_folder import CLAIMS, STAGE, RunFolder
from jobs.experiment.specs import ClusterSpec, StageSpec
from jobs.recovery.micro_batch import with_stored_micro_batch
from jobs.recovery.nodes import notice
from jobs.worker.cell import measure, save_weights
from jobs.worker.failures import BlockedError, identity, respond, send_back
from models.pruning.registry import method_label

if TYPE_CHECKING:
    from jobs.parallel.engine import Ranks

CLAIM_POLL_S = 1.0


def run_job(order: JobSpec) -> None:
    """Runs the stages and finishes the cells. With one rank a stage that fails leaves the others their turn; with several, the job ends."""
    from jobs.parallel.engine import rendezvous
    from jobs.parallel.memory import free_unused

    run = RunFolder(Path(order.run))
    ranks = rendezvous(threads=order.cluster.cpus_per_task)
    for spec in order.stages:
        while attempt(run, spec, order, ranks):
            free_unused()
    if this_job() and not ranks.broadcast(any(run.done(spec.id) for spec in order.stages)):  # one rank looks: what others see may be old, over NFS
        raise NothingDone("no stage of this job has left weights; SLURM does not start what waits for it")


def attempt(run: RunFolder, spec: StageSpec, order: JobSpec, ranks: "Ranks") -> bool:
    """True when a stage did not fit into memory and is to go on at once with smaller micro-batches; False when it has ended or is not wanted."""
    wanted = any(not run.cancelled(path.cell.id) for path in behind(order, spec))
    spec, wanted = ranks.broadcast((with_stored_micro_batch(spec, run.stage_dir(spec.id), ranks.world), wanted))
    if not wanted:
        print(f"stage {spec.id} is left out: its cells were cancelled", flush=True)
        return False
    try:
        run_stage(run, spec, order.cluster, ranks)
        for path in behind(order, spec):
            if path.stages[-1] == spec.id and run.done(spec.id):
                finish_cell(run, order, path, ranks, spec)
    except Exception as error:
        again = respond(run, spec, order, error, ranks)
        if ranks.world > 1 and not isinstance(error, BlockedError):
            if len(order.stages) > 1 and run.failure(spec.id) is not None:
                send_back(())  # the ranks are out of step: another attempt at this job goes on with its other stages
            raise
        return again
    return False


def behind(order: JobSpec, spec: StageSpec) -> list[PlannedCell]:
    """The cells of an order that pass through a stage."""
    return [path for path in order.cells if spec.id in path.stages]


def run_stage(run: RunFolder, spec: StageSpec, cluster: ClusterSpec, ranks: "Ranks") -> None:
    """Trains one stage unless it is done or has failed. Whoever finds it claimed waits: two launches never run it twice."""
    from jobs.data.prepare import prepare
    from jobs.train.stage import train_stage

    with claimed_together(run.path / CLAIMS / spec.id, ranks):
        parents = [stage for stage in (spec.parent, spec.rewind) if stage]
        todo, blocked = ranks.broadcast(
            (not run.done(spec.id) and run.failure(spec.id) is None, next((stage for stage in parents if not run.done(stage)), None))
        )
        if not todo:
            return
        if blocked:
            raise BlockedError(f"stage {blocked}, from which this one starts, has no weights: see {run.stage_dir(blocked)}")
        if ranks.rank == 0:
            notice(run, run.stage_dir(spec.id), cluster)
            write_json(run.stage_dir(spec.id) / STAGE, {**describe(spec), "started": now(), **whereabouts()})
            print(f"stage {spec.id}: {stage_entry(spec).title}", flush=True)
        data = prepare(spec.data, Path(cluster.cache).expanduser())
        parent, rewind = (run.stage_dir(stage) if stage else None for stage in (spec.parent, spec.rewind))
        train_stage(spec, data, run.stage_dir(spec.id), parent=parent, rewind=rewind, ranks=ranks, cluster=cluster)


def finish_cell(run: RunFolder, order: JobSpec, path: PlannedCell, ranks: "Ranks", last: StageSpec) -> None:
    """Records a cell: the saved file is loaded again, meets the test set for the first and only time, and is profiled. Rank 0 alone writes.

    `last`: its last stage as it was run.
    """
    with claimed_together(run.path / CLAIMS / f"cell-{path.cell.id}", ranks):
        if ranks.broadcast(run.record_path(path.cell.id).exists()):
            return
        started = now()
        weights = save_weights(run, path) if ranks.rank == 0 else None
        weights = ranks.broadcast(weights)
        measured = measure(run, path, Path(weights), order.cluster, ranks, last)
        if ranks.rank == 0:
            metrics, surroundings = measured
            run.write_record(
                Record(
                    **identity(order, path),
                    status="done",
                    metrics=metrics,
                    environment=surroundings,
                    weights_sha256=sha256_of(Path(weights)),
                    started=started,
                    finished=now(),
                )
            )


@contextmanager
def claimed_together(path: Path, ranks: "Ranks") -> Iterator[None]:
    """Holds a claim while the block runs. Ranks ask every second whether rank 0 has it, so that none waits longer than a collective may."""
    while True:
        with claimed(path, wait=False) if ranks.rank == 0 else nullcontext(False) as held:
            if ranks.broadcast(held):
                yield
                return
        time.sleep(CLAIM_POLL_S)


def describe(spec: StageSpec) -> dict[str, Any]:
    """What a stage was, for people who read its folder."""
    stage = spec.stage
    return {
        "name": stage.name,
        "model": spec.model.label,
        "method": method_label(stage.method) if stage.method else None,
        "epochs": stage.epochs,
        "seed": spec.seed,
        "parent": spec.parent,
        "rewind": spec.rewind,
    }


def whereabouts() -> dict[str, Any]:
    """Who works on a stage: host and process, and under SLURM the job, its nodes, and how often it had been restarted."""
    job = this_job()
    slurm = {"job": job, "nodes": os.environ.get("SLURM_JOB_NODELIST"), "restarts": restarts()} if job else {}
    return {"host": socket.gethostname(), "pid": os.getpid(), **slurm}


class NothingDone(RuntimeError):
    """A job ends without weights for those that wait for it; why stands with its stages."""
