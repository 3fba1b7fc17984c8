"""Data sets that SLURM jobs write, on CPUs, before the trainings that wait for them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from harness.submit.data_first import missing, title
from harness.submit.local import fresh_folder
from harness.text import counted
from jobs.cluster.slurm import in_queue
from jobs.cluster.slurm_arrays import submit_array
from jobs.experiment.files import write_json
from jobs.experiment.ids import JobId
from jobs.experiment.plugins import copy_in
from jobs.experiment.run_folder import DATA, RunFolder
from jobs.experiment.specs import ClusterSpec, DataSpec, PrepareSpec
from jobs.worker.data_job import DataJob, failure_path, job_path, shards_there, write_data
from models.plugins.tables import origin

# Options of the trainings that hold for these jobs too; the others are about GPUs, nodes or time.
INHERITED: Final = ("partition", "account", "qos", "exclude", "wckey", "comment", "mail_type", "mail_user", "stderr_to_stdout")


def submit_data(cluster: ClusterSpec, run: RunFolder, data: Sequence[DataSpec]) -> dict[DataSpec, JobId]:
    """The jobs that write those data sets that are not written yet: jobs that SLURM has already, or new ones. Raises SchedulerError, DataError."""
    from jobs.data.prepare import data_folder

    folders = {spec: data_folder(spec, Path(cluster.cache), cluster.hash_data) for spec in data}
    jobs: dict[Path, JobId] = {}
    for spec in missing(cluster, data):
        folder = folders[spec]
        assert folder is not None
        jobs[folder] = living_job(folder, spec) or submit_array_for(cluster, run, spec, folder)
    write_json(run.path / DATA, {title(spec): str(folder) for spec, folder in folders.items() if folder in jobs})
    return {spec: jobs[folder] for spec, folder in folders.items() if folder in jobs}


def living_job(folder: Path, data: DataSpec) -> JobId | None:
    """The job that writes a data set already, for whichever grid; None if there is none."""
    try:
        job = JobId.parse(json.loads(job_path(folder).read_bytes())["job"])
    except (OSError, ValueError, KeyError):
        return None
    if not in_queue(str(job)):
        return None
    print(f"{title(data)}: SLURM job {job} writes it already; the trainings wait for it", flush=True)
    return job


def submit_array_for(cluster: ClusterSpec, run: RunFolder, data: DataSpec, folder: Path) -> JobId:
    """The new job that writes a data set: an array, or a plain job."""
    failed = failure_path(folder)
    if failed.exists():
        print(f"{title(data)}: it could not be written before: {json.loads(failed.read_bytes())['message']}", flush=True)
    writing = data_cluster(cluster)
    plugin, cache = origin("data", data.source), str(Path(cluster.cache).expanduser().absolute())
    plugins = (copy_in(run, plugin.sha256),) if plugin else ()
    job = DataJob(plugins=plugins, data=data, cache=cache, by_content=cluster.hash_data, workers=writing.cpus_per_task)
    logs = fresh_folder(run.jobs_dir)
    tasks = dict.fromkeys(range(prepare_of(cluster).jobs), job)
    ids = submit_array(writing, logs, write_data, tasks, name="prepare", progress=shards_there)
    number = ids[0].array
    write_json(job_path(folder), {"job": str(number), "logs": str(logs)})
    size = f"{counted(len(ids), 'job')} of {counted(writing.cpus_per_task, 'CPU')}"
    print(f"{title(data)}: written first, by SLURM job {number} ({size}), logs in {logs}", flush=True)
    return number


def prepare_of(cluster: ClusterSpec) -> PrepareSpec:
    """What a profile says of these jobs."""
    return cluster.prepare or PrepareSpec()


def data_cluster(cluster: ClusterSpec) -> ClusterSpec:
    """The profile of the jobs that write data: one process on CPUs each, without a GPU."""
    prepare = prepare_of(cluster)
    inherited: Mapping[str, Any] = {name: value for name, value in cluster.slurm.items() if name in INHERITED}
    return replace(
        cluster,
        nodes=1,
        tasks_per_node=1,
        gpus_per_node=0,
        cpus_per_task=prepare.cpus_per_task or cluster.tasks_per_node * cluster.cpus_per_task,
        mem_gb=prepare.mem_gb or cluster.mem_gb,
        timeout_min=prepare.timeout_min or cluster.timeout_min,
        slurm={**inherited, **prepare.slurm},
    )
