"""The one door to submitit: a function and its arguments become jobs in this process, on this machine, or on a SLURM cluster."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.specs import ClusterSpec

if TYPE_CHECKING:
    from submitit import Job


MAX_NUM_TIMEOUT = 3  # submitit's own: how often a job that runs into its time limit is queued again


@dataclass(frozen=True)
class OnNode:
    """What every rank of a job calls. Preemption (USR2) queues the same call again: stages go on from their own checkpoints."""

    function: Callable[[Any], None]
    argument: Any

    def __call__(self) -> None:
        """Exports RANK, WORLD_SIZE, MASTER_ADDR ... where the job has several ranks, then calls the function."""
        export_ranks()
        self.function(self.argument)

    def checkpoint(self) -> Any:
        """What submitit queues when the job is preempted. Nothing is saved here: a collective save in rank 0's signal handler would deadlock."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def export_ranks() -> None:
    """Sets torch's rendezvous variables from the scheduler's; a job of one rank needs none."""
    from submitit import JobEnvironment

    if "SUBMITIT_EXECUTOR" not in os.environ or JobEnvironment().num_tasks == 1:
        return
    from submitit.helpers import TorchDistributedEnvironment

    # CUDA_VISIBLE_DEVICES stays as SLURM set it: submitit's default hides the other GPUs while DeepSpeed selects by LOCAL_RANK
    TorchDistributedEnvironment().export(set_cuda_visible_devices=False)


def submit(cluster: ClusterSpec, folder: Path, function: Callable[[Any], None], argument: Any, *, name: str, slot: int = 0) -> "Job":
    """One submitted job. `folder` must be its own: submitit trusts result files of an earlier job with the same id.

    slot: which of the jobs that run side by side on this machine this is; decides its GPUs.
    """
    from submitit import LocalExecutor
    from submitit.local.debug import DebugExecutor

    if cluster.kind == "slurm":
        raise ValueError("SLURM jobs are submitted as arrays: use submit_array")
    if cluster.kind == "debug":
        return DebugExecutor(folder).submit(OnNode(function, argument))
    executor = LocalExecutor(folder)
    executor.update_parameters(
        timeout_min=cluster.timeout_min,
        tasks_per_node=cluster.tasks_per_node,
        gpus_per_node=cluster.gpus_per_node,
        visible_gpus=tuple(range(slot * cluster.gpus_per_node, (slot + 1) * cluster.gpus_per_node)),
        name=name,
        stderr_to_stdout=True,
    )
    return executor.submit(OnNode(function, argument))


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


def submit_array(
    cluster: ClusterSpec, folder: Path, function: Callable[[Any], None], arguments: Sequence[Any], *, name: str, after: Sequence[str] = ()
) -> "list[Job]":
    """The jobs of one SLURM array, which starts when the jobs `after` have ended, well or not."""
    from submitit import SlurmExecutor

    parameters = slurm_parameters(cluster, name, after)
    executor = SlurmExecutor(folder, max_num_timeout=parameters.pop("max_num_timeout", MAX_NUM_TIMEOUT))
    executor.update_parameters(**parameters)
    with executor.batch():
        return [executor.submit(OnNode(function, argument)) for argument in arguments]


def slurm_parameters(cluster: ClusterSpec, name: str, after: Sequence[str] = ()) -> dict[str, Any]:
    """submitit's SLURM parameters for a cluster: what the profile says, with the defaults that multi-rank jobs need."""
    given = {key.removeprefix("slurm_"): value for key, value in cluster.slurm.items()}
    if after:
        given["dependency"] = "afterany:" + ":".join(after)
    parameters: dict[str, Any] = {
        "job_name": name,
        "nodes": cluster.nodes,
        "ntasks_per_node": cluster.tasks_per_node,
        "cpus_per_task": cluster.cpus_per_task,
        "time": cluster.timeout_min,
        "stderr_to_stdout": True,
        "use_srun": True,
        # a rank that dies ends the job: without it the others wait for their collective
        "srun_args": ["--kill-on-bad-exit=1"],
        # submitit forces --wckey=submitit unless told otherwise, and some clusters reject it
        "wckey": None,
        **given,
    }
    if cluster.gpus_per_node:
        parameters["gpus_per_node"] = cluster.gpus_per_node
    if cluster.mem_gb:
        parameters["mem"] = f"{cluster.mem_gb:g}GB"
    if cluster.max_parallel:
        parameters["array_parallelism"] = cluster.max_parallel
    if cluster.setup:
        parameters["setup"] = list(cluster.setup)
    return parameters


def local_slots(cluster: ClusterSpec) -> int:
    """How many jobs run side by side on this machine."""
    if cluster.max_parallel:
        return cluster.max_parallel
    return max(1, len(os.sched_getaffinity(0)) // (cluster.tasks_per_node * cluster.cpus_per_task))
