"""Jobs through submitit: a function and its argument become a job in this process or on this machine. SLURM's are in jobs/cluster/slurm_arrays.py."""

import io
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.cluster.gpus import VARIABLE, gpus_of_slot, visible_gpus
from jobs.cluster.slurm import ask, restarts, this_job
from jobs.cluster.surroundings import forget_outer_job, forget_outer_ranks, forget_strict_warnings
from jobs.experiment.specs import ClusterSpec

if TYPE_CHECKING:
    from submitit import Job
    from submitit.helpers import DelayedSubmission

IDLE_LIMIT = 3  # runs in a row that reach their time limit without progress
SLACK_S = 60.0  # by which SLURM may signal early, and its clock and ours may differ


class NoProgress(RuntimeError):
    """A job has reached its time limit again and again without progress."""


@dataclass(kw_only=True)
class ResumableCall:
    """The call that every rank of a job makes. Preemption and the time limit (signal USR2) queue it again: stages resume from their own checkpoints.

    progress: from the argument, a value that changes when the job makes progress. A job that reaches its time limit IDLE_LIMIT times in a row without
    a change ends with NoProgress. Interruptions of other kinds are not counted.
    """

    function: Callable[[Any], None]
    argument: Any
    progress: Callable[[Any], object] | None = None
    limit_s: float = math.inf  # after which SLURM signals that the time is over
    gpus: tuple[str, ...] = ()  # of a local job: numbers or UUIDs, which CUDA is to see
    idle: int = 0  # runs in a row that have reached the limit without progress
    began_s: float = 0.0
    progress_at_start: object = None

    def __call__(self) -> None:
        """Exports RANK, WORLD_SIZE and where the ranks meet if the job has several, then calls the function."""
        export_ranks()
        forget_strict_warnings()
        if self.gpus:  # submitit passes on numbers alone
            os.environ[VARIABLE] = ",".join(self.gpus)
        print_any_text()
        self.began_s, self.progress_at_start = time.monotonic(), self.progress_now()
        self.function(self.argument)

    def progress_now(self) -> object:
        """The value that tells how far the job has come."""
        return None if self.progress is None else self.progress(self.argument)

    def checkpoint(self) -> "DelayedSubmission":
        """What submitit queues when the job must leave its nodes. Nothing is saved here: a collective save in rank 0's signal handler would deadlock.

        Raises NoProgress, or SchedulerSilent if SLURM's controller does not answer.
        """
        from submitit.helpers import DelayedSubmission

        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # a second signal, while submitit writes its files, would make this call fail
        stuck = self.progress_now() == self.progress_at_start
        idle = self.idle if stuck else 0
        if self.progress is not None and time.monotonic() - self.began_s > self.limit_s - SLACK_S:
            idle += stuck
        if idle >= IDLE_LIMIT:
            remedy = "raise timeout_min, or set checkpoint_steps so that a checkpoint fits into one run"
            raise NoProgress(f"{idle} runs in a row reached the time limit without leaving a new checkpoint; {remedy}")
        if job := this_job():
            ask("squeue", "--noheader", f"--jobs={job}")  # waits for a controller that is down: submitit would give the job up
        return DelayedSubmission(replace(self, idle=idle))


def export_ranks() -> None:
    """Sets torch's variables from the scheduler's, and the file through which the ranks meet. A job of one rank keeps none of them."""
    from submitit import JobEnvironment

    if "SUBMITIT_EXECUTOR" not in os.environ or (job := JobEnvironment()).num_tasks == 1:
        forget_outer_ranks()
        return
    # CUDA_VISIBLE_DEVICES stays as SLURM set it; DeepSpeed selects by LOCAL_RANK
    os.environ |= {
        "RANK": str(job.global_rank),
        "WORLD_SIZE": str(job.num_tasks),
        "LOCAL_RANK": str(job.local_rank),
        "LOCAL_WORLD_SIZE": str(job.num_tasks // job.num_nodes),
        "NNODES": str(job.num_nodes),
        "MEETING_FILE": str(job.paths.folder / f"{job.job_id}-{restarts()}.meeting"),
    }


def print_any_text() -> None:
    """Lets this process print text that its terminal or log has no characters for: in escapes, where Python would raise an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def submit(cluster: ClusterSpec, folder: Path, function: Callable[[Any], None], argument: Any, *, name: str, slot: int = 0) -> "Job[None]":
    """The submitted job. It needs a `folder` of its own: submitit trusts result files of an earlier job with the same id. The variables of a job
    around this process are removed from its environment, since the job inherits it.

    slot: the job's number among those that run side by side on this machine; it decides the job's GPUs. ValueError where there are not enough.
    """
    from submitit import LocalExecutor
    from submitit.local.debug import DebugExecutor

    if cluster.kind == "slurm":
        raise ValueError("SLURM jobs are submitted as arrays: use jobs.cluster.slurm_arrays")
    forget_outer_job()
    if cluster.kind == "debug":
        return DebugExecutor(folder).submit(ResumableCall(function=function, argument=argument))
    executor, gpus = LocalExecutor(folder), gpus_of_slot(cluster, slot)
    executor.update_parameters(
        timeout_min=cluster.timeout_min,
        tasks_per_node=cluster.tasks_per_node,
        gpus_per_node=cluster.gpus_per_node,
        name=name,
        stderr_to_stdout=True,
    )
    return executor.submit(ResumableCall(function=function, argument=argument, gpus=gpus))


def live_ranks(job: "Job[None]") -> int:
    """How many ranks of a local job are alive. submitit waits for all of them, so a rank that dies leaves the others waiting at their rendezvous."""
    import psutil

    try:
        children = psutil.Process(int(job.job_id)).children()
        return sum(child.status() != psutil.STATUS_ZOMBIE for child in children)
    except psutil.NoSuchProcess:
        return 0


def stop(job: "Job[None]") -> None:
    """Kills every process of a local job. submitit's own cancel sends SIGINT, which the jobs of a launcher in the background ignore."""
    stop_tree(int(job.job_id))


def stop_tree(pid: int) -> None:
    """Kills a process of this machine and all its descendants; returns when they are gone."""
    import psutil

    try:
        controller = psutil.Process(pid)
        processes = [controller, *controller.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=10)


def local_slots(cluster: ClusterSpec) -> int:
    """How many jobs run side by side. Without `max_parallel`: as many as the cores and the GPUs of this machine hold, at least one; for SLURM one,
    since a login node decides nothing there."""
    if cluster.max_parallel or cluster.kind == "slurm":
        return cluster.max_parallel or 1
    slots = len(os.sched_getaffinity(0)) // (cluster.tasks_per_node * cluster.cpus_per_task)
    if cluster.gpus_per_node:
        slots = min(slots, len(visible_gpus()) // cluster.gpus_per_node)
    return max(1, slots)
