"""Orders as SLURM job arrays: one array a level of the forest, each after the one that its stages start from."""

from collections.abc import Sequence

from harness.queue import fresh_folder
from harness.records import RunFolder
from harness.runner import Order, run_order
from jobs.cluster import submit_array
from jobs.files import write_json
from jobs.specs import ClusterSpec


def levels(orders: Sequence[Order]) -> list[list[Order]]:
    """Orders by depth: those of a level start only from stages of levels before it, or from stages that are done."""
    depth_of_stage: dict[str, int] = {}
    found: list[list[Order]] = []
    for order in orders:
        inside = {spec.id for spec in order.stages}
        parents = {stage for spec in order.stages for stage in (spec.parent, spec.rewind) if stage} - inside
        depth = 1 + max((depth_of_stage[stage] for stage in parents if stage in depth_of_stage), default=-1)
        depth_of_stage.update(dict.fromkeys(inside, depth))
        found.extend([] for _ in range(depth + 1 - len(found)))
        found[depth].append(order)
    return found


def submit_arrays(cluster: ClusterSpec, run: RunFolder, orders: Sequence[Order]) -> list[str]:
    """The job ids, one a line for people; also kept in the run folder. Returns at once: nothing here must stay alive."""
    after: list[str] = []
    lines = []
    for depth, level in enumerate(levels(orders)):
        folder = fresh_folder(run.path / "jobs")
        jobs = submit_array(cluster, folder, run_order, level, name=level[0].grid, after=after)
        ids = [job.job_id for job in jobs]
        write_json(folder / "stages.json", {job: [spec.id for spec in order.stages] for job, order in zip(ids, level, strict=True)})
        lines.append(f"level {depth}: {len(ids)} jobs, {ids[0]} to {ids[-1]}, logs in {folder}")
        after = sorted({job.split("_")[0] for job in ids})
    return lines
