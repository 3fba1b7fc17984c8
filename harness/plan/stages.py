"""From cells to the forest of stages that they share, from stages to jobs, and what `--dry-run` says of both."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any

from harness.grid.identity import canonical, data_identity, model_identity, stage_id, stage_identity, stage_recipe, stage_recipe_identity
from harness.grid.read import Cell, Grid
from jobs.specs import DataSpec, ModelSpec, RecipeSpec, StageSpec
from models.pruning.base import Budget, Stage


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The forest. Parents stand before their children; a cell's path begins with its first stage."""

    stages: Mapping[str, StageSpec]
    paths: Mapping[str, tuple[str, ...]]  # by cell id


@dataclass(frozen=True, kw_only=True)
class Pack:
    """Stages that one process runs one after the other, parents first."""

    index: int  # its place among the packs
    stages: tuple[str, ...]
    after: tuple[int, ...]  # packs that must be done before it, all of them at smaller places
    level: int  # 0: waits for no pack; otherwise one more than the highest level that it waits for


def make_plan(cells: Iterable[Cell]) -> Plan:
    """The stages of all cells, each once, and every cell's path."""
    forest = _Forest()
    paths = {cell.id: forest.path(cell) for cell in cells}
    for named, steps in forest.steps.items():
        spec = forest.stages[named]
        forest.stages[named] = replace(spec, stage=replace(spec.stage, keep_steps=tuple(sorted(steps))))
    return Plan(stages=forest.stages, paths=paths)


class _Forest:
    """Grows the stages. Cells of a grid share their specs, so the text of each is made once and found again by its object."""

    def __init__(self) -> None:
        self.stages: dict[str, StageSpec] = {}
        self.steps: dict[str, set[int]] = {}  # that a stage keeps, for all the cells that share it
        self.kept: dict[tuple[Any, ...], tuple[Any, Any]] = {}  # the objects are held, so that no other takes their place in memory

    def path(self, cell: Cell) -> tuple[str, ...]:
        before: list[tuple[str, Stage]] = []
        for stage in self.stages_of(cell):
            named = self.stage(cell, stage, before)
            before.append((named, stage))
            if stage.keep_steps:
                self.steps.setdefault(named, set()).update(stage.keep_steps)
        return tuple(named for named, _ in before)

    def stages_of(self, cell: Cell) -> tuple[Stage, ...]:
        key = ("stages", id(cell.method), id(cell.recipe))
        if key not in self.kept:
            budget = Budget(epochs=cell.recipe.epochs, finetune_epochs=cell.recipe.finetune_epochs)
            self.kept[key] = ((cell.method, cell.recipe), cell.method.stages(budget))
        found: tuple[Stage, ...] = self.kept[key][1]
        return found

    def stage(self, cell: Cell, stage: Stage, before: Sequence[tuple[str, Stage]]) -> str:
        """The id of a stage that follows `before`; a new one is added."""
        parent = before[-1][0] if before and stage.start != "scratch" else None
        kept = (named for named, one in before if stage.rewind_step in one.keep_steps)
        rewind = next(kept, None) if stage.start == "rewind" else None
        if stage.start != "scratch" and parent is None or stage.start == "rewind" and rewind is None:
            raise ValueError(f"{cell.method.name}: stage {stage.name!r} starts from {stage.start}, but no stage before it leaves those weights")
        recipe, recipe_text = self.recipe(cell.recipe, stage)
        texts = self.model(cell.model), self.data(cell.data), recipe_text
        named = stage_id(*texts, cell.seed, self.text(stage), parent, rewind)
        if named not in self.stages:
            self.stages[named] = StageSpec(
                id=named, model=cell.model, data=cell.data, recipe=recipe, seed=cell.seed, stage=stage, parent=parent, rewind=rewind
            )
        return named

    def recipe(self, recipe: RecipeSpec, stage: Stage) -> tuple[RecipeSpec, str]:
        key = ("recipe", id(recipe), stage.schedule, stage.epochs)
        if key not in self.kept:
            text = canonical(stage_recipe_identity(recipe, stage.schedule))
            self.kept[key] = (recipe, (stage_recipe(recipe, stage), text))
        found: tuple[RecipeSpec, str] = self.kept[key][1]
        return found

    def model(self, model: ModelSpec) -> str:
        return self.text_of(model, model_identity)

    def data(self, data: DataSpec) -> str:
        return self.text_of(data, data_identity)

    def text(self, stage: Stage) -> str:
        return self.text_of(stage, stage_identity)

    def text_of(self, value: Any, identity: Any) -> str:
        key = (id(value),)
        if key not in self.kept:
            self.kept[key] = (value, canonical(identity(value)))
        return str(self.kept[key][1])


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


def describe(plan: Plan, grid: Grid, packs: Sequence[Pack], done: AbstractSet[str] = frozenset()) -> str:
    """What `--dry-run` prints: the cells, the stages that they share, the epochs that sharing saves, the jobs. `done`: ids of finished stages."""
    parts = [_cells(grid), _stages(plan), _epochs(plan, done), _jobs(grid, packs, len(plan.stages), len(done & plan.stages.keys()))]
    return "\n\n".join(parts)


def _cells(grid: Grid) -> str:
    """Models by pruning methods, the seeds (and data sets and recipes, where there are several) counted."""
    counts = Counter((cell.model.label, cell.pruning) for cell in grid.cells)
    models = list(dict.fromkeys(model for model, _ in counts))
    methods = list(dict.fromkeys(method for _, method in counts))
    seeds = sorted({cell.seed for cell in grid.cells})
    rows = [["cells", *models]] + [[method, *(str(counts[model, method] or "-") for model in models)] for method in methods]
    shown = ", ".join(map(str, seeds)) if len(seeds) <= 10 else f"{seeds[0]} to {seeds[-1]}, {len(seeds)} of them"
    others = {"data sets": len({id(cell.data) for cell in grid.cells}), "recipes": len({id(cell.recipe) for cell in grid.cells})}
    several = "".join(f", {count} {what}" for what, count in others.items() if count > 1)
    return f"{grid.name}: {len(grid.cells)} cells (seeds {shown}{several})\n{_table(rows)}"


def _stages(plan: Plan) -> str:
    """Kinds of stages: how many there are, and how many cells share each."""
    users = Counter(stage for path in plan.paths.values() for stage in path)
    kinds: dict[tuple[str, str, int], list[int]] = {}
    for named, spec in plan.stages.items():
        method = spec.stage.method.name if spec.stage.method else "-"
        kinds.setdefault((spec.stage.name, method, spec.stage.epochs), []).append(users[named])
    rows = [["stage", "pruning", "epochs", "stages", "cells sharing each"]]
    for (name, method, epochs), shared in kinds.items():
        low, high = min(shared), max(shared)
        rows.append([name, method, str(epochs), str(len(shared)), str(low) if low == high else f"{low} to {high}"])
    return _table(rows)


def _epochs(plan: Plan, done: AbstractSet[str]) -> str:
    """Training epochs: to do, done, and saved by sharing."""
    epochs = {named: spec.stage.epochs for named, spec in plan.stages.items()}
    alone = sum(epochs[stage] for path in plan.paths.values() for stage in path)
    total = sum(epochs.values())
    saved = f"{alone - total} saved by sharing ({100 * (alone - total) / alone:.0f}% of {alone})" if alone else "none saved"
    past = sum(count for named, count in epochs.items() if named in done)
    return f"training epochs: {total}, {saved}" + (f"; {past} done, {total - past} to do" if past else "")


def _jobs(grid: Grid, packs: Sequence[Pack], stages: int, done: int) -> str:
    """Jobs, their ranks, and how they wait for each other."""
    cluster = grid.cluster
    levels = Counter(one.level for one in packs)
    waits = f" in {len(levels)} levels of {', '.join(str(levels[level]) for level in sorted(levels))}" if len(levels) > 1 else ""
    to_do = sum(len(one.stages) for one in packs)
    most = max((len(one.stages) for one in packs), default=0)
    ranks = f"{cluster.ranks} rank{'s' if cluster.ranks > 1 else ''} each ({cluster.nodes} x {cluster.tasks_per_node})"
    jobs = f"{len(packs)}{waits}, up to {most} stages each, {ranks}, {cluster.kind}" if packs else "none"
    return f"stages: {stages}, {done} done, {to_do} to do\njobs: {jobs}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join(cell.ljust(width) if not index else cell.rjust(width) for index, (cell, width) in enumerate(zip(row, widths))) for row in rows]
    return "\n".join(f"  {line}".rstrip() for line in lines)
