"""What happens when a stage fails on its node: it goes on with less, it goes elsewhere, or it stops with a record that says why."""

import json
import os
import socket
import time
import traceback
from pathlib import Path
from subprocess import CalledProcessError, TimeoutExpired
from typing import TYPE_CHECKING, Any

from jobs.cluster.slurm import SchedulerError, requeue, restarts, this_job
from jobs.experiment.job import JobSpec, PlannedCell
from jobs.experiment.records import Failure, Record, now
from jobs.experiment.run_folder import STAGE, RunFolder
from jobs.experiment.specs import ClusterSpec, StageSpec
from jobs.recovery.micro_batch import halve_micro_batch
from jobs.recovery.nodes import blame, excluded_nodes, left_out
from jobs.recovery.triage import DISK_FULL, PEER_LOST, policy_of
from jobs.worker.current_environment import current_environment

if TYPE_CHECKING:
    from jobs.parallel.engine import Ranks

ELSEWHERE = 3  # times that one job is sent to other nodes
REQUEUED_S = 60.0  # until SLURM has killed a job that it has taken back


class BlockedError(RuntimeError):
    """The stage that this one starts from has failed or was never run."""


def respond(run: RunFolder, spec: StageSpec, order: JobSpec, error: Exception, ranks: "Ranks") -> bool:
    """True when the stage, as it was run in `spec`, is to go on at once here; otherwise its failure is written, or another attempt is on its way."""
    if isinstance(error, BlockedError):
        print(f"stage {spec.id} is left out: {error}", flush=True)
        return False
    traceback.print_exc()
    if left_behind(run.stage_dir(spec.id)):
        print(f"stage {spec.id} has been begun anew by a later attempt at this job: this error is of no consequence", flush=True)
        return False
    policy = policy_of(type(error).__name__, told(error))
    if policy == "halve" and (micro := halve_micro_batch(spec, run.stage_dir(spec.id), ranks.world, told(error))) is not None:
        print(f"stage {spec.id} ran out of memory; it goes on with micro-batches of {micro} images, the global batch kept", flush=True)
        if ranks.world > 1:
            send_back(())  # the other ranks wait in a collective: the job has to end
        return ranks.world == 1
    if policy == "elsewhere" and go_elsewhere(run, spec.id, order.cluster, error):
        return False
    fail(run, spec, order, error, ranks)
    return False


def go_elsewhere(run: RunFolder, stage: str, cluster: ClusterSpec, error: Exception) -> bool:
    """True when SLURM will start this job again on other nodes. This node's failure is counted."""
    job = this_job()
    if job is None:
        return False
    node = os.environ.get("SLURMD_NODENAME", socket.gethostname())
    blame(run, node, f"{job}-{restarts()}", begun(run.stage_dir(stage)), f"{type(error).__name__}: {error}")
    return restarts() < ELSEWHERE and send_back(excluded_nodes(cluster, [node, *left_out(run)]))


def left_behind(folder: Path) -> bool:
    """True when a later attempt at this job has begun the stage in `folder`: SLURM has given up the node on which this one lives on."""
    path = folder / STAGE
    told = json.loads(path.read_text()) if path.exists() else {}
    return told.get("job") is not None and told["job"] == this_job() and told["restarts"] > restarts()


def begun(folder: Path) -> str:
    """When the attempt at the stage in `folder` began, ISO 8601."""
    path = folder / STAGE
    return str(json.loads(path.read_text())["started"]) if path.exists() else now()


def send_back(without: list[str] | tuple[()]) -> bool:
    """True when SLURM has taken this job back; does not return before it should have killed it."""
    job = this_job()
    if job is None or not requeue(job, without):
        return False
    time.sleep(REQUEUED_S)
    return True


def fail(run: RunFolder, spec: StageSpec, order: JobSpec, error: Exception, ranks: "Ranks") -> None:
    """Writes why a stage stopped, and a record that says so for every cell that passes through it.

    Some errors stand in the log alone: that of a rank that merely lost its peer (the peer says it, or nobody does and the job counts as killed); and
    a full disk, or a scheduler that does not answer or has taken the job's nodes already, which are no fault of the cell: the stage stays open.
    """
    if peer_lost(error) or disk_full(error) or isinstance(error, SchedulerError) or too_late(error):
        return
    failure = Failure(
        kind="diverged" if type(error).__name__ == "Diverged" else type(error).__name__,
        message=str(error) or repr(error),
        stage=spec.id,
        traceback=traceback.format_exc(),
        host=os.environ.get("SLURMD_NODENAME", socket.gethostname()),
    )
    if run.write_failure(spec.id, failure):
        record_failure(run, failure, order, ranks.world)


def record_failure(run: RunFolder, failure: Failure, order: JobSpec, ranks: int) -> None:
    """Failed records of every cell that passes through the stage which failed."""
    for path in order.cells:
        if failure.stage in path.stages and not run.record_path(path.cell.id).exists():
            surroundings = current_environment(
                ranks=ranks, threads=order.cluster.cpus_per_task, loader=path.cell.data.loader, scan=path.cell.recipe.scan, data_sha256=""
            )
            run.write_record(
                Record(**identity(order, path), status="failed", failure=failure, environment=surroundings, started=now(), finished=now())
            )


def identity(order: JobSpec, path: PlannedCell) -> dict[str, Any]:
    """The fields of a record that say which cell it is."""
    cell = path.cell
    return {
        "id": cell.id,
        "grid": order.grid,
        "model": cell.model.label,
        "pruning": cell.pruning,
        "seed": cell.seed,
        "spec": cell.to_json(),
        "stages": list(path.stages),
    }


def peer_lost(error: Exception) -> bool:
    """True for what gloo, NCCL and torch's store raise on the ranks that are left when one has died."""
    return PEER_LOST.search(str(error)) is not None


def too_late(error: Exception) -> bool:
    """True when submitit, told to leave the nodes, could not queue its job again: SLURM had done so already, or the job was cancelled."""
    return isinstance(error, CalledProcessError | TimeoutExpired) and "scontrol" in error.cmd


def disk_full(error: BaseException | None) -> bool:
    """True when an error, or one that led to it, is that of a full disk."""
    return any(DISK_FULL.search(text) for text in texts(error))


def told(error: BaseException) -> str:
    """An error's text, with those that led to it."""
    return " <- ".join(texts(error))


def texts(error: BaseException | None) -> list[str]:
    """What an error says, then what led to it."""
    found: list[str] = []
    while error is not None:
        found.append(str(error) or type(error).__name__)
        error = error.__cause__ or error.__context__
    return found
