"""The small SLURM job that waits for all others of a launch and tells of the end, however they ended."""

from collections.abc import Iterable
from dataclasses import replace

from harness.submit.data_jobs import data_cluster
from harness.submit.local import fresh_folder
from jobs.cluster.slurm import SchedulerError
from jobs.cluster.slurm_arrays import submit_array
from jobs.experiment.ids import JobId
from jobs.experiment.run_folder import RunFolder
from jobs.experiment.specs import ClusterSpec
from jobs.worker.notify import EndJob, read_notice, tell_end

MEM_GB = 2.0
MINUTES = 30  # the command has ten at most, and so has the status that it is given


def submit_end_job(cluster: ClusterSpec, run: RunFolder, jobs: Iterable[JobId]) -> list[str]:
    """A line for people, or none if this launch does not want to be told of its end. It runs where `prepare` runs, on one CPU.

    jobs: those that it waits for.
    """
    notice = read_notice(run)
    if notice is None or "end" not in notice.on:
        return []
    small = replace(data_cluster(cluster), cpus_per_task=1, mem_gb=cluster.mem_gb and MEM_GB, timeout_min=MINUTES)
    after = "afterany:" + ":".join(dict.fromkeys(str(job.array) for job in jobs))
    argument = EndJob(run=str(run.path.absolute()), launch=notice.launch)
    try:
        ids = submit_array(small, fresh_folder(run.jobs_dir), tell_end, {0: argument}, name="notify", after=after)
    except SchedulerError as error:
        return [f"no job waits for the end ({error}): the last job tells of it, unless it is killed"]
    return [f"job {ids[0]} waits for all of them, to tell of the end (notify)"]
