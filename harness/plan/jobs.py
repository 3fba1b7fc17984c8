"""From stages to jobs: which stages one process runs, and for which cells."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.grid.read import Grid
from harness.plan.stages import StageGraph
from jobs.cluster.submitit_jobs import local_slots
from jobs.experiment.job import JobSpec, PlannedCell
from jobs.experiment.rewinds import missing_steps
from jobs.experiment.run_folder import EXPORT, RunFolder
from jobs.experiment.specs import StageSpec


@dataclass(frozen=True, kw_only=True)
class Pack:
    """Stages that one process runs one after the other, parents first."""

    index: int  # its place among the packs
    stages: tuple[str, ...]
    after: tuple[int, ...]  # packs that must be done before it, all of them at smaller places
    level: int  # 0: waits for no pack; otherwise one more than the highest level that it waits for


def planned_cells(grid: Grid, plan: StageGraph) -> tuple[PlannedCell, ...]:
    """Every cell with the stages that lead to it."""
    return tuple(PlannedCell(cell=cell, stages=plan.paths[cell.id]) for cell in grid.cells)


def done_stages(plan: StageGraph, run: RunFolder) -> frozenset[str]:
    """Stages that have left their weights, those at every step that this plan rewinds to among them."""
    done = frozenset(stage for stage in plan.stages if run.done(stage))
    return done - set(to_replay(plan, run))


def to_replay(plan: StageGraph, run: RunFolder) -> list[str]:
    """Stages that were finished before anybody rewound to a step of theirs: trained again as far as that step, they lose nothing."""
    kept = ((spec.id, spec.stage.keep_steps) for spec in plan.stages.values() if spec.stage.keep_steps)
    return [stage for stage, steps in kept if (run.stage_dir(stage) / EXPORT).is_dir() and missing_steps(run.stage_dir(stage), steps)]


def make_packs(grid: Grid, plan: StageGraph, run: RunFolder, left: Sequence[PlannedCell], held: Collection[str] = ()) -> tuple[Pack, ...]:
    """What one process each will run, parents first: the stages that are not done, and the last stage of every cell without a record.

    held: stages that jobs of an earlier launch have; as a cell's last stage one is named all the same, for the cell to be measured.
    """
    done = done_stages(plan, run).union(held)
    todo = {stage for path in left for stage in path.stages if stage not in done} | {path.stages[-1] for path in left}
    return pack([spec for spec in plan.stages.values() if spec.id in todo], grid.cluster.stages_per_job, slots=local_slots(grid.cluster))


def make_jobs(grid: Grid, plan: StageGraph, run: RunFolder, left: Sequence[PlannedCell], held: Collection[str] = ()) -> list[JobSpec]:
    """One order a job, with the cells that pass through its stages. `held`: see make_packs."""
    behind: dict[str, list[int]] = {}
    for index, path in enumerate(left):
        for stage in path.stages:
            behind.setdefault(stage, []).append(index)
    return [
        JobSpec(
            run=str(run.path.resolve()),
            grid=grid.name,
            stages=tuple(plan.stages[stage] for stage in one.stages),
            cells=tuple(left[index] for index in sorted({index for stage in one.stages for index in behind.get(stage, [])})),
            cluster=grid.cluster,
        )
        for one in make_packs(grid, plan, run, left, held)
    ]


def pack(stages: Iterable[StageSpec], stages_per_job: int, slots: int = 1) -> tuple[Pack, ...]:
    """Stages to do, in the plan's order, at most `stages_per_job` of them to a pack. A parent that is not among them counts as done.

    A tree that fits goes into one process, trunk first, together with other trees that fit beside it. A tree that does not fit is cut: the first pack
    takes the trunk and goes on depth first; what hangs from that pack is packed by the same rule and waits for it. So unrelated trees never wait for
    each other. When full packs would be fewer than `slots` (jobs that can run at the same time), they are made smaller, down to one stage, so that
    every slot has work: start-up is cheaper than an idle core.
    """
    if stages_per_job < 1 or slots < 1:
        raise ValueError(f"stages_per_job and slots must be at least 1, got {stages_per_job} and {slots}")
    todo = {spec.id: spec for spec in stages}
    size = min(stages_per_job, max(1, -(-len(todo) // slots)))
    children: dict[str | None, list[str]] = {}
    for spec in todo.values():
        above = next((one for one in (spec.parent, spec.rewind) if one in todo), None)
        children.setdefault(above, []).append(spec.id)
    return _numbered(_chunks(children, size), todo)


def _chunks(children: Mapping[str | None, list[str]], size: int) -> list[list[str]]:
    """Stages by pack; a pack stands behind those that it waits for."""
    packs: list[list[str]] = []
    waiting: list[list[str]] = [children.get(None, [])]  # groups of roots that wait for the same pack
    for roots in waiting:
        current: list[str] = []
        for root in roots:
            tree = list(_below(root, children, size + 1))
            if len(tree) > size:
                packs.append(tree[:size])
                current, taken = [], set(tree[:size])
                waiting.append([child for one in tree[:size] for child in children.get(one, []) if child not in taken])
                continue
            if not current or len(current) + len(tree) > size:
                current = []
                packs.append(current)
            current += tree
    return packs


def _below(root: str, children: Mapping[str | None, list[str]], limit: int) -> Iterator[str]:
    """A stage and what follows from it, depth first, up to `limit` of them."""
    stack = [root]
    while stack and limit:
        limit -= 1
        stage = stack.pop()
        yield stage
        stack += reversed(children.get(stage, []))


def _numbered(packs: list[list[str]], todo: Mapping[str, StageSpec]) -> tuple[Pack, ...]:
    place = {stage: index for index, stages in enumerate(packs) for stage in stages}
    numbered: list[Pack] = []
    for index, stages in enumerate(packs):
        before = {place[one] for stage in stages for one in (todo[stage].parent, todo[stage].rewind) if one in place}
        after = tuple(sorted(before - {index}))
        numbered.append(Pack(index=index, stages=tuple(stages), after=after, level=1 + max((numbered[one].level for one in after), default=-1)))
    return tuple(numbered)
