"""From cells to the graph of stages that they share."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jobs.experiment.cell import Cell
from jobs.experiment.identity import canonical, data_identity, model_identity, stage_id, stage_identity, stage_recipe, stage_recipe_identity
from jobs.experiment.specs import DataSpec, ModelSpec, RecipeSpec, StageSpec
from models.pruning.base import Budget, Stage


@dataclass(frozen=True, kw_only=True)
class StageGraph:
    """The builder. Parents stand before their children; a cell's path begins with its first stage."""

    stages: Mapping[str, StageSpec]
    paths: Mapping[str, tuple[str, ...]]  # by cell id


def make_graph(cells: Iterable[Cell]) -> StageGraph:
    """The stages of all cells, each once, and every cell's path."""
    builder = _GraphBuilder()
    paths = {cell.id: builder.path(cell) for cell in cells}
    for named, steps in builder.steps.items():
        spec = builder.stages[named]
        builder.stages[named] = replace(spec, stage=replace(spec.stage, keep_steps=tuple(sorted(steps))))
    return StageGraph(stages=builder.stages, paths=paths)


class _GraphBuilder:
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
