"""The response to an exception in a stage: it goes on with smaller micro-batches, moves to another node, or stops with a record that says why."""

import os
import time
import traceback
from collections.abc import Iterable
from pathlib import Path
from subprocess import CalledProcessError, TimeoutExpired
from typing import TYPE_CHECKING

from jobs.cluster.slurm import SchedulerError, requeue, restarts, this_job
from jobs.experiment.attempt import read_attempt
from jobs.experiment.files import recognizable, this_host
from jobs.experiment.ids import StageId
from jobs.experiment.job import JobSpec
from jobs.experiment.records import Failure, now
from jobs.experiment.run_folder import RunFolder
from jobs.experiment.specs import ClusterSpec, StageSpec
from jobs.recovery.micro_batch import halve_micro_batch
from jobs.recovery.nodes import blame, excluded_nodes, left_out
from jobs.recovery.triage import DISK_FULL, PEER_LOST, policy_of
from jobs.worker.cell import cell_record
from jobs.worker.environment import current_environment
from jobs.worker.notify import tell
from models.plugins.modules import line_in_plugin

if TYPE_CHECKING:
    from jobs.parallel.engine import Ranks

MAX_MOVES = 3  # times that one job is moved to other nodes
REQUEUED_S = 60.0  # SLURM kills a requeued job within this time


class BlockedError(RuntimeError):
    """A stage that this one starts from has failed, or never ran."""


def respond(run: RunFolder, spec: StageSpec, job: JobSpec, error: Exception, ranks: "Ranks") -> bool:
    """True if the stage, as it was run in `spec`, has to run again here at once. Otherwise its failure is written, or another attempt will follow."""
    if isinstance(error, BlockedError):
        print(f"stage {spec.id} is skipped: {error}", flush=True)
        return False
    traceback.print_exc()
    folder = run.stage_dir(spec.id)
    if superseded(folder):
        print(f"stage {spec.id}: a later attempt at this job has taken over; this error does not matter", flush=True)
        return False
    if is_peer_lost(error):
        print(f"stage {spec.id} has lost another rank, whose own log says why; this node is not at fault", flush=True)
        return False
    policy = policy_of(type(error).__name__, error_chain(error))
    if policy == "halve" and (micro := halve_micro_batch(spec, folder, ranks.world, error_chain(error))) is not None:
        print(f"stage {spec.id} ran out of memory; it goes on with micro-batches of {micro} images, the global batch kept", flush=True)
        if ranks.world > 1:
            requeue_this_job(())  # the other ranks wait in a collective, so the job has to end
        return ranks.world == 1
    if policy == "elsewhere" and move_elsewhere(run, spec.id, job.cluster, error):
        return False
    stop_stage(run, spec, job, error, ranks)
    return False


def refuse_job(run: RunFolder, job: JobSpec, error: Exception) -> None:
    """The response to an error before any stage has started: the job moves to another node if the node is at fault; else its stages have failed."""
    todo = [spec for spec in job.stages if not run.done(spec.id)]
    if not todo or superseded(run.stage_dir(todo[0].id)):
        return
    if policy_of(type(error).__name__, str(error)) == "elsewhere" and move_elsewhere(run, todo[0].id, job.cluster, error):
        return
    for spec in todo:
        fail_stage(run, spec.id, job, error, job.cluster.ranks)


def move_elsewhere(run: RunFolder, stage: str, cluster: ClusterSpec, error: Exception) -> bool:
    """True if the stage is left for another node: SLURM starts this job again on one or, if this job may not be queued again, the next launch does.

    Counts the failure of this node.
    """
    job = this_job()
    if job is None:
        return False
    node = this_node()
    blame(run, node, f"{job}-{restarts()}", attempt_started(run.stage_dir(stage)), f"{type(error).__name__}: {error}")
    if restarts() >= MAX_MOVES:
        return False
    if not requeue_this_job(excluded_nodes(cluster, [node, *left_out(run)])):
        print(f"stage {stage} is left for the next launch, since SLURM does not queue this job again; its node {node} failed", flush=True)
    return True


def superseded(folder: Path) -> bool:
    """True if a later attempt at this job has started the stage in `folder`: SLURM has given up the node of this process, which is still alive."""
    attempt = read_attempt(folder)
    return attempt is not None and attempt.job is not None and str(attempt.job) == this_job() and attempt.restarts > restarts()


def attempt_started(folder: Path) -> str:
    """When the last attempt at the stage in `folder` started, ISO 8601; now if none has."""
    attempt = read_attempt(folder)
    return now() if attempt is None else attempt.started


def requeue_this_job(without: Iterable[str]) -> bool:
    """True if SLURM has requeued this job, to start it on nodes other than `without`. Returns only after SLURM should have killed the job."""
    job = this_job()
    if job is None or not requeue(job, without):
        return False
    time.sleep(REQUEUED_S)
    return True


def stop_stage(run: RunFolder, spec: StageSpec, job: JobSpec, error: Exception, ranks: "Ranks") -> None:
    """Writes why a stage stopped, and a failed record for every cell that passes through it.

    Some errors are left to the log, and the stage stays open: a rank that lost its peer (the peer writes its own error, or the job counts as
    killed), a full disk, a scheduler that does not answer, a job whose nodes SLURM has taken already. None of these is a fault of the cell.
    """
    if is_requeue_refused(error):
        again = "SLURM does not queue this job again (scontrol requeue was refused, or it has done so already)"
        print(f"stage {spec.id} is left as its last checkpoint has it: {again}; the next launch goes on from there", flush=True)
    if is_peer_lost(error) or is_disk_full(error) or isinstance(error, SchedulerError) or is_requeue_refused(error):
        return
    fail_stage(run, spec.id, job, error, ranks.world)


def fail_stage(run: RunFolder, stage: StageId, job: JobSpec, error: Exception, ranks: int) -> None:
    """Writes an error as the reason why a stage stopped for good, with a failed record for every cell that passes through it."""
    plugin = line_in_plugin(error)
    failure = Failure(
        kind="diverged" if type(error).__name__ == "Diverged" else type(error).__name__,
        message=(str(error) or repr(error)) + (f" ({plugin})" if plugin else ""),
        stage=stage,
        traceback=traceback.format_exc(),
        host=this_node(),
    )
    if run.write_failure(stage, failure):
        record_failure(run, failure, job, ranks)
        tell(run, "first_failure", failure=f"{failure.kind}: {failure.message} (stage {stage})")


def record_failure(run: RunFolder, failure: Failure, job: JobSpec, ranks: int) -> None:
    """Writes a failed record for every cell of the job that cannot do without the failed stage and has no record yet."""
    for planned in job.cells:
        if failure.stage in planned.required and not run.record_path(planned.cell.id).exists():
            loader, scan, threads = planned.cell.data.loader, planned.cell.recipe.scan, job.cluster.cpus_per_task
            surroundings = current_environment(ranks=ranks, threads=threads, loader=loader, scan=scan, data_sha256="")
            run.write_record(cell_record(job, planned, surroundings, started=now(), failure=failure))


def this_node() -> str:
    """SLURM's name of this node, else the host's."""
    return str(recognizable(os.environ.get("SLURMD_NODENAME", this_host())))


def is_peer_lost(error: Exception) -> bool:
    """True for errors of gloo, NCCL and torch's store on the ranks that are left when another rank has died."""
    return PEER_LOST.search(str(error)) is not None


def is_requeue_refused(error: Exception) -> bool:
    """True if submitit could not requeue its job when it had to leave its nodes: SLURM had requeued it already, or the job was cancelled."""
    return isinstance(error, CalledProcessError | TimeoutExpired) and "scontrol" in error.cmd


def is_disk_full(error: BaseException | None) -> bool:
    """True if an error, or one of its causes, comes from a full disk."""
    return any(DISK_FULL.search(message) for message in messages_of(error))


def error_chain(error: BaseException) -> str:
    """The message of an error, then those of its causes."""
    return " <- ".join(messages_of(error))


def messages_of(error: BaseException | None) -> list[str]:
    """The message of an error, then those of its causes; the class of an error without a message."""
    messages: list[str] = []
    while error is not None:
        messages.append(str(error) or type(error).__name__)
        error = error.__cause__ or error.__context__
    return messages
