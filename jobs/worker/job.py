"""A job on one screen: for each of its stages claim, train, mark done; for each cell that a stage completes measure and record.

The same functions run on a SLURM node, in a local job and inside `reproduce`.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.cluster.claims import claimed
from jobs.cluster.slurm import restarts, this_job
from jobs.experiment.attempt import Attempt, write_attempt
from jobs.experiment.collector import collect_rarely
from jobs.experiment.files import sha256_of, this_host
from jobs.experiment.ids import JobId
from jobs.experiment.index import stage_entry
from jobs.experiment.job import JobSpec, PlannedCell
from jobs.experiment.output import replace_unencodable
from jobs.experiment.records import now
from jobs.experiment.run_folder import RunFolder
from jobs.experiment.specs import ClusterSpec, StageSpec
from jobs.recovery.leftovers import remove_asides
from jobs.recovery.micro_batch import with_stored_micro_batch
from jobs.recovery.nodes import blame_lost_nodes
from jobs.worker.cell import cell_record, describe_cell, measure_cell, save_weights
from jobs.worker.choice import choose, tuning_record, unended_trials
from jobs.worker.data import data_on_this_node
from jobs.worker.failures import BlockedError, refuse_job, requeue_this_job, respond
from jobs.worker.node_folders import use_writable_folders
from jobs.worker.notify import tell_end_if_over
from models.pruning.registry import method_label

if TYPE_CHECKING:
    from jobs.parallel.engine import Ranks

CLAIM_POLL_S = 1.0


def run_job(job: JobSpec) -> None:
    """Runs the stages and finishes the cells. With one rank, the other stages run after one that failed; with several, the job ends.

    Raises NothingDone, and GpuMissing for a job that was promised GPUs and sees none.
    """
    collect_rarely()
    replace_unencodable()
    for line in use_writable_folders(job.cluster.cache):  # before libraries look at the variables
        print(line, flush=True)
    from jobs.parallel.devices import GpuMissing
    from jobs.parallel.engine import rendezvous
    from jobs.parallel.memory import free_unused

    run = RunFolder(Path(job.run))
    try:
        ranks = rendezvous(threads=job.cluster.cpus_per_task, gpus=job.cluster.promised_gpus)
    except GpuMissing as error:
        refuse_job(run, job, error)
        raise
    for spec in job.stages:
        while attempt_stage(run, spec, job, ranks):
            free_unused()
    if this_job() and ranks.rank == 0:
        tell_end_if_over(run)
    if this_job() and not ranks.broadcast(any(run.done(spec.id) for spec in job.stages)):  # one rank looks: over NFS, others may see an old state
        raise NothingDone("no stage of this job has left weights; SLURM does not start the jobs that wait for it")
    ranks.finish()


def attempt_stage(run: RunFolder, spec: StageSpec, job: JobSpec, ranks: "Ranks") -> bool:
    """True if the stage ran out of memory and has to run again at once with smaller micro-batches; False if it has ended or is cancelled."""
    wanted = any(not run.cancelled(planned.cell.id) for planned in cells_of(job, spec))
    spec, wanted = ranks.broadcast((with_stored_micro_batch(spec, run.stage_dir(spec.id), ranks.world), wanted))
    if not wanted:
        print(f"stage {spec.id} is skipped: its cells were cancelled", flush=True)
        return False
    try:
        run_stage(run, spec, job.cluster, ranks)
        for planned in cells_of(job, spec):
            if planned.stages[-1] == spec.id and run.done(spec.id):
                finish_cell(run, job, planned, ranks, spec)
    except Exception as error:
        again = respond(run, spec, job, error, ranks)
        if ranks.world > 1 and not isinstance(error, BlockedError):
            if len(job.stages) > 1 and run.failure(spec.id) is not None:
                requeue_this_job(())  # the ranks are out of step: another attempt at this job runs its other stages
            raise
        return again
    return False


def cells_of(job: JobSpec, spec: StageSpec) -> list[PlannedCell]:
    """The cells of a job that pass through a stage."""
    return [planned for planned in job.cells if spec.id in planned.stages]


def run_stage(run: RunFolder, spec: StageSpec, cluster: ClusterSpec, ranks: "Ranks") -> None:
    """Trains one stage, or chooses among trials, unless it is done or has failed. Waits while another process has claimed it, so that two launches
    never run it twice.

    Raises BlockedError if a stage that it starts from has no weights, or if a trial has not ended.
    """
    folder = run.stage_dir(spec.id)
    with claimed_together(run.stage_claim(spec.id), ranks):
        todo = not run.done(spec.id) and run.failure(spec.id) is None
        todo, blocked = ranks.broadcast((todo, why_blocked(run, spec)))
        if not todo:
            return
        if blocked:
            raise BlockedError(blocked)
        if ranks.rank == 0:
            remove_asides(folder)
            blame_lost_nodes(run, folder, cluster)
            write_attempt(folder, this_attempt(), description(spec))
            print(f"stage {spec.id}: {stage_entry(spec).title}", flush=True)
        if spec.trials:
            choose(run, spec, ranks)
            return
        data = data_on_this_node(spec.data, cluster, ranks)
        parent, rewind, teacher = (run.stage_dir(stage) if stage else None for stage in (spec.parent, spec.rewind, spec.teacher))
        from jobs.train.stage import train_stage

        train_stage(spec, data, folder, parent=parent, rewind=rewind, teacher=teacher, ranks=ranks, cluster=cluster)


def why_blocked(run: RunFolder, spec: StageSpec) -> str | None:
    """Why a stage cannot start: one before it has no weights, or a trial has not ended; None if it can."""
    if missing := next((stage for stage in spec.needed if not run.done(stage)), None):
        return f"stage {missing}, which this one needs, has no weights: see {run.stage_dir(missing)}"
    unended = unended_trials(run, spec)
    return f"the choice among {len(spec.trials)} trials waits for {unended[0]}: see {run.stage_dir(unended[0])}" if unended else None


def finish_cell(run: RunFolder, job: JobSpec, planned: PlannedCell, ranks: "Ranks", last: StageSpec) -> None:
    """Records a cell: loads its saved file again, evaluates it on the test set, for the first and only time, and profiles it. Rank 0 alone writes.

    `last`: the cell's last stage as it was run.
    """
    with claimed_together(run.cell_claim(planned.cell.id), ranks):
        if ranks.broadcast(run.record_path(planned.cell.id).exists()):
            return
        started = now()
        if ranks.rank == 0:
            remove_asides(run.record_path(planned.cell.id).parent)
        weights = Path(ranks.broadcast(save_weights(run, planned) if ranks.rank == 0 else None))
        measured = measure_cell(run, planned, weights, job.cluster, ranks, last)
        if measured is not None:
            record = cell_record(
                job,
                planned,
                measured.environment,
                started=started,
                metrics=measured.metrics,
                weights_sha256=sha256_of(weights),
                tuning=tuning_record(run, planned),
            )
            describe_cell(weights.parent, planned.cell, record, measured.data)
            run.write_record(record)


@contextmanager
def claimed_together(path: Path, ranks: "Ranks") -> Iterator[None]:
    """Holds a claim while the block runs. All ranks ask every second whether rank 0 has it, so none waits longer than a collective may."""
    while True:
        with claimed(path, wait=False) if ranks.rank == 0 else nullcontext(False) as held:
            if ranks.broadcast(held):
                yield
                return
        time.sleep(CLAIM_POLL_S)


def description(spec: StageSpec) -> dict[str, object]:
    """The settings of a stage that stage.json holds for people who read its folder."""
    stage = spec.stage
    return {
        "name": stage.name,
        "model": spec.model.label,
        "method": method_label(stage.method) if stage.method else None,
        "epochs": stage.epochs,
        "seed": spec.seed,
        "parent": spec.parent,
        "rewind": spec.rewind,
        "teacher": spec.teacher,
    }


def this_attempt() -> Attempt:
    """This process as the one that works on a stage: host and process; under SLURM also the job, its nodes and its number of restarts."""
    job, nodes = this_job(), os.environ.get("SLURM_JOB_NODELIST", "")
    slurm_job = JobId.parse(job) if job else None
    return Attempt(started=now(), host=this_host(), pid=os.getpid(), job=slurm_job, nodes=nodes, restarts=restarts())


class NothingDone(RuntimeError):
    """A job ends without weights for the jobs that wait for it; its stages say why."""
