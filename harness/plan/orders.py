"""What one job is handed: which stages, and for which cells."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from harness.grid.read import Cell, Grid
from harness.plan.stages import Pack, Plan, pack
from harness.records import RunFolder
from jobs.scheduling.cluster import local_slots
from jobs.specs import ClusterSpec, StageSpec
from jobs.train.rewinds import missing_steps


@dataclass(frozen=True, kw_only=True)
class CellPath:
    """A cell and the stages that lead to it, first stage first."""

    cell: Cell
    stages: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Order:
    """What one job is handed: stages in an order in which parents come first, and every cell that passes through one of them."""

    run: str  # run folder
    grid: str
    stages: tuple[StageSpec, ...]
    cells: tuple[CellPath, ...]
    cluster: ClusterSpec


def cell_paths(grid: Grid, plan: Plan) -> tuple[CellPath, ...]:
    """Every cell with the stages that lead to it."""
    return tuple(CellPath(cell=cell, stages=plan.paths[cell.id]) for cell in grid.cells)


def done_stages(plan: Plan, run: RunFolder) -> frozenset[str]:
    """Stages that have left their weights, those at every step that this plan rewinds to among them."""
    done = frozenset(stage for stage in plan.stages if run.done(stage))
    return done - set(to_replay(plan, run))


def to_replay(plan: Plan, run: RunFolder) -> list[str]:
    """Stages that were finished before anybody rewound to a step of theirs: trained again as far as that step, they lose nothing."""
    kept = ((spec.id, spec.stage.keep_steps) for spec in plan.stages.values() if spec.stage.keep_steps)
    return [stage for stage, steps in kept if (run.stage(stage) / "export").is_dir() and missing_steps(run.stage(stage), steps)]


def make_packs(grid: Grid, plan: Plan, run: RunFolder, left: Sequence[CellPath], held: Collection[str] = ()) -> tuple[Pack, ...]:
    """What one process each will run, parents first: the stages that are not done, and the last stage of every cell without a record.

    held: stages that jobs of an earlier launch have; as a cell's last stage one is named all the same, for the cell to be measured.
    """
    done = done_stages(plan, run).union(held)
    todo = {stage for path in left for stage in path.stages if stage not in done} | {path.stages[-1] for path in left}
    return pack([spec for spec in plan.stages.values() if spec.id in todo], grid.cluster.stages_per_job, slots=local_slots(grid.cluster))


def make_orders(grid: Grid, plan: Plan, run: RunFolder, left: Sequence[CellPath], held: Collection[str] = ()) -> list[Order]:
    """One order a job, with the cells that pass through its stages. `held`: see make_packs."""
    behind: dict[str, list[int]] = {}
    for index, path in enumerate(left):
        for stage in path.stages:
            behind.setdefault(stage, []).append(index)
    return [
        Order(
            run=str(run.path.resolve()),
            grid=grid.name,
            stages=tuple(plan.stages[stage] for stage in one.stages),
            cells=tuple(left[index] for index in sorted({index for stage in one.stages for index in behind.get(stage, [])})),
            cluster=grid.cluster,
        )
        for one in make_packs(grid, plan, run, left, held)
    ]
