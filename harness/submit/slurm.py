"""Jobs as SLURM job arrays, each job after those that its stages start from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from harness.plan.jobs import parent_jobs
from harness.submit.dependencies import Array, dependency, fan_out, jobs_at_a_time
from harness.submit.local import fresh_folder
from harness.submit.notify_job import submit_end_job
from harness.text import counted
from jobs.cluster.slurm import SchedulerError
from jobs.cluster.slurm_arrays import submit_array
from jobs.cluster.slurm_limits import free_jobs, max_array_size
from jobs.experiment.ids import JobId, StageId
from jobs.experiment.job import JobSpec
from jobs.experiment.run_folder import CHECKPOINTS, RunFolder
from jobs.experiment.specs import ClusterSpec, DataSpec
from jobs.experiment.submissions import write_submitted
from jobs.worker.job import run_job

NOTHING: Mapping[DataSpec, JobId] = MappingProxyType({})


def submit_arrays(
    cluster: ClusterSpec, run: RunFolder, jobs: Sequence[JobSpec], living: Mapping[StageId, JobId], data_jobs: Mapping[DataSpec, JobId] = NOTHING
) -> list[str]:
    """What was submitted, as lines for people. The run folder keeps which job has which stages, and SLURM does the rest: no process must stay alive.

    living: jobs of a previous launch, by the stages that they have; jobs that start from such a stage wait for them. Jobs that SLURM has no room for
    stay open for a later launch. data_jobs: the jobs that write data sets, for which the trainings on these wait. Raises SchedulerError when SLURM
    takes none.
    """
    room = free_jobs(cluster.slurm.get("account"))
    accepted = jobs if room is None else jobs[:room]
    queued = awaited(accepted, living, data_jobs)
    present = by_array(queued)
    choosing = {number for number, job in enumerate(accepted, len(queued)) if all(spec.trials for spec in job.stages)}
    above = parents(accepted, living, queued, data_jobs)
    sizes = [0] * len(queued) + [id(job.cluster) for job in accepted]  # jobs of one size share the object of their cluster
    arrays = fan_out(above, max_array_size(), present, sizes, choosing)
    ids: list[Mapping[int, JobId]] = [{task: queued[job] for task, job in tasks.items()} for tasks in present]
    new = arrays[len(present) :]
    lines: list[str] = []
    for array, at_a_time in zip(new, jobs_at_a_time(new, cluster.max_parallel), strict=True):
        folder = fresh_folder(run.jobs_dir)
        tasks = {task: accepted[job - len(queued)] for task, job in array.jobs.items()}
        try:
            ids.append(submit_recorded(next(iter(tasks.values())).cluster, folder, tasks, dependency(array, ids), at_a_time))
        except SchedulerError as error:
            if not lines:
                raise
            lines.append(f"SLURM takes no more: {error}")
            break
        lines.append(summary(array, list(ids[-1].values()), folder))
    lines += submit_end_job(cluster, run, [*(next(iter(tasks.values())) for tasks in ids), *living.values()])
    own = ids[len(present) :]
    submitted = sum(map(len, own))
    lines.append(
        f"{counted(submitted, 'job')} submitted, in {counted(len(own), 'array')}; you may close this session; "
        f"progress: python -m harness.status {run.path}"
    )
    if submitted < len(jobs):
        why = f" (it takes {room} more of yours now)" if room is not None and room < len(jobs) else ""
        lines.append(f"{counted(len(jobs) - submitted, 'job')} wait for room in SLURM's queue{why}: launch again when some have ended")
    return lines


def submit_recorded(cluster: ClusterSpec, folder: Path, jobs: Mapping[int, JobSpec], after: str, at_a_time: int) -> dict[int, JobId]:
    """Job ids by task of one new array. Its folder records which job has which stages."""
    name = next(iter(jobs.values())).grid
    ids = submit_array(cluster, folder, run_job, jobs, name=name, after=after, at_a_time=at_a_time, progress=progress_marker)
    write_submitted(folder, {ids[task]: [spec.id for spec in job.stages] for task, job in jobs.items()})
    return ids


def summary(array: Array, ids: Sequence[JobId], folder: Path) -> str:
    """A submitted array as a line for people."""
    shown = f"{ids[0]}" if len(ids) == 1 else f"{ids[0]} to {ids[-1]}"
    return f"level {array.level}: {counted(len(ids), 'job')}, {shown}, logs in {folder}"


def awaited(jobs: Sequence[JobSpec], living: Mapping[StageId, JobId], data_jobs: Mapping[DataSpec, JobId] = NOTHING) -> list[JobId]:
    """The living jobs that `jobs` wait for: each has a stage that a job starts from, or a job's own last stage, whose cells that job will measure, or
    writes the data of a stage.
    """
    specs = [spec for job in jobs for spec in job.stages]
    stages = (stage for spec in specs for stage in (*spec.before, spec.id))
    trained = (living[stage] for stage in stages if stage in living)
    return list(dict.fromkeys([*trained, *(data_jobs[spec.data] for spec in specs if spec.data in data_jobs)]))


def by_array(queued: Sequence[JobId]) -> list[dict[int, int]]:
    """Positions in `queued` by task, for each of SLURM's arrays."""
    positions: dict[JobId, dict[int, int]] = {}
    for position, job in enumerate(queued):
        positions.setdefault(job.array, {})[job.task or 0] = position
    return list(positions.values())


def parents(
    jobs: Sequence[JobSpec], living: Mapping[StageId, JobId], queued: Sequence[JobId], data_jobs: Mapping[DataSpec, JobId] = NOTHING
) -> list[frozenset[int]]:
    """For each of `queued`, which wait for nothing here, and then for each of `jobs`: the numbers of the jobs that it waits for, in that sequence."""
    number = {job: position for position, job in enumerate(queued)}
    holders = {stage: number[job] for stage, job in living.items() if job in number}
    starts = parent_jobs([job.stages for job in jobs], holders, first=len(queued))
    own = [frozenset(holders[spec.id] for spec in job.stages if spec.id in holders) for job in jobs]
    data = [frozenset(number[data_jobs[spec.data]] for spec in job.stages if spec.data in data_jobs) for job in jobs]
    return [frozenset[int]()] * len(queued) + [above | same | first for above, same, first in zip(starts, own, data, strict=True)]


def progress_marker(job: JobSpec) -> list[object]:
    """A value that changes whenever a job makes progress: its stages' checkpoints and exports, its cells' records."""
    run = RunFolder(Path(job.run))
    checkpoints = [sorted(path.name for path in (run.stage_dir(spec.id) / CHECKPOINTS).glob("step-*")) for spec in job.stages]
    recorded = [run.record_path(planned.cell.id).exists() for planned in job.cells]
    return [*checkpoints, [run.done(spec.id) for spec in job.stages], recorded]
