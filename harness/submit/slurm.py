"""Orders as SLURM job arrays, each task after the one that its stages start from."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.submit.dependencies import Array, dependency, fan_out, shares
from harness.submit.local import fresh_folder
from jobs.cluster.slurm import SchedulerError
from jobs.cluster.slurm_arrays import submit_array
from jobs.cluster.slurm_limits import free_jobs, max_array_size
from jobs.experiment.files import write_json
from jobs.experiment.job import JobSpec
from jobs.experiment.run_folder import CHECKPOINTS, JOBS, SUBMITTED, RunFolder
from jobs.experiment.specs import ClusterSpec
from jobs.worker.job import run_job


def submit_arrays(cluster: ClusterSpec, run: RunFolder, orders: Sequence[JobSpec], living: Mapping[str, str]) -> list[str]:
    """What was submitted, one line for people each; job ids and stages are kept in the run folder. Nothing here must stay alive.

    living: jobs of an earlier launch by the stages that they have; orders that start from those wait for them. Jobs that SLURM does not take any more
    stay open for a later launch. Raises SchedulerError when it takes none.
    """
    room = free_jobs(cluster.slurm.get("account"))
    taken = orders if room is None else orders[:room]
    jobs = needed(taken, living)
    present = by_array(jobs)
    arrays = fan_out(waits(taken, living, jobs), max_array_size(), present)
    names = [{task: str(jobs[place]) for task, place in tasks.items()} for tasks in present]
    new = arrays[len(present) :]
    lines: list[str] = []
    for array, share in zip(new, shares(new, cluster.max_parallel), strict=True):
        folder = fresh_folder(run.path / JOBS)
        tasks = [(task, taken[place - len(jobs)]) for task, place in array.orders.items()]
        try:
            names.append(submit_one(cluster, folder, tasks, dependency(array, names), share))
        except SchedulerError as error:
            if not lines:
                raise
            lines.append(f"SLURM takes no more: {error}")
            break
        lines.append(line(array, names[-1], folder))
    mine = names[len(present) :]
    submitted = sum(map(len, mine))
    lines.append(f"{submitted} jobs submitted, in {len(mine)} arrays; this session may end, SLURM goes on: python -m harness.status {run.path}")
    if submitted < len(orders):
        why = f" (it takes {room} more of yours now)" if room is not None and room < len(orders) else ""
        lines.append(f"{len(orders) - submitted} jobs wait for room in SLURM's queue{why}: launch again when some have ended")
    return lines


def submit_one(cluster: ClusterSpec, folder: Path, tasks: Sequence[tuple[int, JobSpec]], after: str, share: int) -> dict[int, str]:
    """Job ids by task of one array, which is also written down in its folder."""
    orders = dict(tasks)
    name = next(iter(orders.values())).grid
    names = submit_array(cluster, folder, run_job, orders, name=name, after=after, at_a_time=share, headway=headway)
    write_json(folder / SUBMITTED, {names[task]: [spec.id for spec in order.stages] for task, order in orders.items()})
    return names


def line(array: Array, names: dict[int, str], folder: Path) -> str:
    """An array for people."""
    ids = list(names.values())
    shown = ids[0] if len(ids) == 1 else f"{ids[0]} to {ids[-1]}"
    return f"level {array.level}: {len(ids)} job{'s' if len(ids) > 1 else ''}, {shown}, logs in {folder}"


def needed(orders: Sequence[JobSpec], living: Mapping[str, str]) -> list[str]:
    """The living jobs that orders wait for: they have a stage that one starts from, or its own last stage, whose cells it will measure."""
    stages = (stage for order in orders for spec in order.stages for stage in (spec.parent, spec.rewind, spec.id))
    return list(dict.fromkeys(living[stage] for stage in stages if stage in living))


def by_array(jobs: Sequence[str]) -> list[dict[int, int]]:
    """Places among `jobs` by task, of each array of SLURM's."""
    found: dict[str, dict[int, int]] = {}
    for place, job in enumerate(jobs):
        array, _, task = str(job).partition("_")
        found.setdefault(array, {})[int(task or 0)] = place
    return list(found.values())


def waits(orders: Sequence[JobSpec], living: Mapping[str, str], jobs: Sequence[str]) -> list[frozenset[int]]:
    """For each of `jobs`, which wait for nothing, and behind them for each order: the places of those that have the stages it starts from."""
    number = {job: place for place, job in enumerate(jobs)}
    earlier = {stage: number[job] for stage, job in living.items() if job in number}
    place = earlier | {spec.id: index for index, order in enumerate(orders, len(jobs)) for spec in order.stages}
    found: list[frozenset[int]] = [frozenset()] * len(jobs)
    for index, order in enumerate(orders, len(jobs)):
        starts = {place[stage] for spec in order.stages for stage in (spec.parent, spec.rewind) if stage in place}
        again = {earlier[spec.id] for spec in order.stages if spec.id in earlier}
        found.append(frozenset(starts | again) - {index})
    return found


def headway(order: JobSpec) -> list[object]:
    """What changes when a job comes further: its stages' checkpoints and exports, its cells' records."""
    run = RunFolder(Path(order.run))
    checkpoints = [sorted(path.name for path in (run.stage_dir(spec.id) / CHECKPOINTS).glob("step-*")) for spec in order.stages]
    return [*checkpoints, [run.done(spec.id) for spec in order.stages], [run.record_path(path.cell.id).exists() for path in order.cells]]
