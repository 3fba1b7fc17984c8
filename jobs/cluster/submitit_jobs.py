"""The door to submitit: a function and its argument become a job in this process or on this machine; jobs/cluster/slurm_arrays.py has SLURM's."""

import math
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.cluster.slurm import ask, restarts, this_job
from jobs.experiment.specs import ClusterSpec

if TYPE_CHECKING:
    from submitit import Job

IDLE_LIMIT = 3  # runs that reach their time limit without headway
SLACK_S = 60.0  # by which SLURM's clock and ours may differ


class NoHeadway(RuntimeError):
    """A job ran into its time limit again and again and came no further."""


@dataclass(kw_only=True)
class OnNode:
    """What every rank of a job calls. Preemption and the time limit (USR2) queue the same call again: stages go on from their own checkpoints.

    headway: from the argument, something that changes when the job has come further; a job that reaches its time limit without that, time after time,
    is ended with NoHeadway. All else may interrupt it as often as it likes.
    """

    function: Callable[[Any], None]
    argument: Any
    headway: Callable[[Any], object] | None = None
    limit_s: float = math.inf  # after which SLURM says that the time is over
    idle: int = 0  # runs that reached it without headway, one after the other
    began_s: float = 0.0
    stood_at: object = None

    def __call__(self) -> None:
        """Exports RANK, WORLD_SIZE and where the ranks meet when the job has several, then calls the function."""
        export_ranks()
        self.began_s, self.stood_at = time.monotonic(), self.place()
        self.function(self.argument)

    def place(self) -> object:
        """How far the job has come."""
        return None if self.headway is None else self.headway(self.argument)

    def checkpoint(self) -> Any:
        """What submitit queues when the job must leave its nodes. Nothing is saved here: a collective save in rank 0's signal handler would deadlock.

        Raises NoHeadway; SchedulerSilent where SLURM's controller could not be told.
        """
        from submitit.helpers import DelayedSubmission

        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # a second one, in the midst of submitit's writing, would make this one fail
        idle = self.idle if self.place() == self.stood_at else 0
        if self.headway is not None and time.monotonic() - self.began_s > self.limit_s - SLACK_S:
            idle += self.place() == self.stood_at
        if idle >= IDLE_LIMIT:
            remedy = "raise timeout_min, or set checkpoint_steps so that a checkpoint fits into one run"
            raise NoHeadway(f"{idle} runs in a row reached the time limit without leaving a new checkpoint; {remedy}")
        if job := this_job():
            ask("squeue", "--noheader", f"--jobs={job}")  # waits for a controller that is down: submitit would give the job up
        return DelayedSubmission(replace(self, idle=idle))


def export_ranks() -> None:
    """Sets torch's variables from the scheduler's, and the file through which the ranks meet; a job of one rank needs none."""
    from submitit import JobEnvironment

    if "SUBMITIT_EXECUTOR" not in os.environ or (job := JobEnvironment()).num_tasks == 1:
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


def submit(cluster: ClusterSpec, folder: Path, function: Callable[[Any], None], argument: Any, *, name: str, slot: int = 0) -> "Job":
    """One submitted job. `folder` must be its own: submitit trusts result files of an earlier job with the same id.

    slot: which of the jobs that run side by side on this machine this is; decides its GPUs.
    """
    from submitit import LocalExecutor
    from submitit.local.debug import DebugExecutor

    if cluster.kind == "slurm":
        raise ValueError("SLURM jobs are submitted as arrays: use jobs.cluster.slurm_arrays")
    if cluster.kind == "debug":
        return DebugExecutor(folder).submit(OnNode(function=function, argument=argument))
    executor = LocalExecutor(folder)
    executor.update_parameters(
        timeout_min=cluster.timeout_min,
        tasks_per_node=cluster.tasks_per_node,
        gpus_per_node=cluster.gpus_per_node,
        visible_gpus=tuple(range(slot * cluster.gpus_per_node, (slot + 1) * cluster.gpus_per_node)),
        name=name,
        stderr_to_stdout=True,
    )
    return executor.submit(OnNode(function=function, argument=argument))


def living_ranks(job: "Job") -> int:
    """How many of a local job's ranks are alive. submitit waits for all of them, so one that dies leaves the others at their rendezvous."""
    import psutil

    try:
        children = psutil.Process(int(job.job_id)).children()
        return sum(child.status() != psutil.STATUS_ZOMBIE for child in children)
    except psutil.NoSuchProcess:
        return 0


def stop(job: "Job") -> None:
    """Kills every process of a local job. submitit's own cancel sends SIGINT, which does nothing to jobs of a launcher that was started in the background."""
    stop_tree(int(job.job_id))


def stop_tree(pid: int) -> None:
    """Kills a process of this machine and all that it has started; returns when they are gone."""
    import psutil

    try:
        controller = psutil.Process(pid)
        family = [controller, *controller.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(family, timeout=10)


def local_slots(cluster: ClusterSpec) -> int:
    """How many jobs run side by side on this machine; of SLURM's as many as the profile says, or one: a login node's cores say nothing of them."""
    if cluster.max_parallel or cluster.kind == "slurm":
        return cluster.max_parallel or 1
    return max(1, len(os.sched_getaffinity(0)) // (cluster.tasks_per_node * cluster.cpus_per_task))
