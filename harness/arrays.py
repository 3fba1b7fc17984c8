"""Orders as SLURM job arrays, each task after the one that its stages start from."""

from collections.abc import Sequence
from pathlib import Path

from harness.fan_out import Array, dependency, fan_out, shares
from harness.orders import Order
from harness.queue import fresh_folder
from harness.records import RunFolder
from harness.runner import run_order
from harness.slurm_limits import free_jobs, max_array_size
from harness.submissions import FILE
from jobs.files import write_json
from jobs.scheduler import SchedulerError
from jobs.slurm_arrays import submit_array
from jobs.specs import ClusterSpec


def submit_arrays(cluster: ClusterSpec, run: RunFolder, orders: Sequence[Order]) -> list[str]:
    """What was submitted, one line for people each; job ids and stages are kept in the run folder. Nothing here must stay alive.

    Jobs that SLURM does not take any more stay open for a later launch. Raises SchedulerError when it takes none.
    """
    room = free_jobs(cluster.slurm.get("account"))
    taken = orders if room is None else orders[:room]
    arrays = fan_out(waits(taken), max_array_size())
    names: list[dict[int, str]] = []
    lines: list[str] = []
    for array, share in zip(arrays, shares(arrays, cluster.max_parallel), strict=True):
        folder = fresh_folder(run.path / "jobs")
        try:
            names.append(submit_one(cluster, folder, [(task, taken[order]) for task, order in array.orders.items()], dependency(array, names), share))
        except SchedulerError as error:
            if not names:
                raise
            lines.append(f"SLURM takes no more: {error}")
            break
        lines.append(line(array, names[-1], folder))
    submitted = sum(map(len, names))
    lines.append(f"{submitted} jobs submitted, in {len(names)} arrays; this session may end, SLURM goes on: python -m harness.status {run.path}")
    if submitted < len(orders):
        why = f" (it takes {room} more of yours now)" if room is not None and room < len(orders) else ""
        lines.append(f"{len(orders) - submitted} jobs wait for room in SLURM's queue{why}: launch again when some have ended")
    return lines


def submit_one(cluster: ClusterSpec, folder: Path, tasks: Sequence[tuple[int, Order]], after: str, share: int) -> dict[int, str]:
    """Job ids by task of one array, which is also written down in its folder."""
    orders = dict(tasks)
    name = next(iter(orders.values())).grid
    names = submit_array(cluster, folder, run_order, orders, name=name, after=after, at_a_time=share, headway=headway)
    write_json(folder / FILE, {names[task]: [spec.id for spec in order.stages] for task, order in orders.items()})
    return names


def line(array: Array, names: dict[int, str], folder: Path) -> str:
    """An array for people."""
    ids = list(names.values())
    shown = ids[0] if len(ids) == 1 else f"{ids[0]} to {ids[-1]}"
    return f"level {array.level}: {len(ids)} job{'s' if len(ids) > 1 else ''}, {shown}, logs in {folder}"


def waits(orders: Sequence[Order]) -> list[frozenset[int]]:
    """For each order the places of those that run the stages it starts from."""
    place = {spec.id: index for index, order in enumerate(orders) for spec in order.stages}
    found = []
    for index, order in enumerate(orders):
        starts = {place[stage] for spec in order.stages for stage in (spec.parent, spec.rewind) if stage in place}
        found.append(frozenset(starts - {index}))
    return found


def headway(order: Order) -> list[object]:
    """What changes when a job comes further: its stages' checkpoints and exports, its cells' records."""
    run = RunFolder(Path(order.run))
    checkpoints = [sorted(path.name for path in (run.stage(spec.id) / "checkpoints").glob("step-*")) for spec in order.stages]
    return [*checkpoints, [run.done(spec.id) for spec in order.stages], [run.record_path(path.cell.id).exists() for path in order.cells]]
