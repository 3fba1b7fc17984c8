"""From cells to the graph of stages that they share."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from jobs.experiment.cell import Cell
from jobs.experiment.identity import (
    canonical,
    choice_id,
    data_identity,
    model_identity,
    stage_id,
    stage_identity,
    stage_recipe,
    stage_recipe_identity,
)
from jobs.experiment.ids import CellId, StageId
from jobs.experiment.specs import RecipeSpec, StageSpec
from jobs.experiment.trials import Trial, Values, in_words, touching
from jobs.experiment.tuning import TuneSpec
from models.pruning.base import Budget, Stage
from models.pruning.knobs import is_trunk, trunk

T = TypeVar("T")
CHOOSE: Final = "choose"  # the stage that chooses among the trials of a tuned cell


@dataclass(frozen=True, kw_only=True)
class StageGraph:
    """All stages of a plan, and each cell's path through them. Parents stand before their children; a path begins with the cell's first stage.

    The path of a tuned cell has the stages of all its trials, and last the stage that chooses among them, if there are several.
    """

    stages: Mapping[StageId, StageSpec]
    paths: Mapping[CellId, tuple[StageId, ...]]
    trials: Mapping[CellId, tuple[Trial, ...]] = field(default_factory=dict)  # of tuned cells


def make_graph(cells: Iterable[Cell]) -> StageGraph:
    """The stages of all cells, each once, and every cell's path."""
    builder = _GraphBuilder()
    paths = {cell.id: builder.add(cell) for cell in cells}
    for stage, steps in builder.keep_steps.items():
        spec = builder.stages[stage]
        builder.stages[stage] = replace(spec, stage=replace(spec.stage, keep_steps=tuple(sorted(steps))))
    return StageGraph(stages=builder.stages, paths=paths, trials=builder.trials)


class _GraphBuilder:
    """Collects the stages of one cell after another.

    The cells of a grid share the objects of their settings, so the canonical text of each object is made once. The caches know an object by its
    `id()`, and hold it, so that no other object can get the same `id()`.
    """

    def __init__(self) -> None:
        self.stages: dict[StageId, StageSpec] = {}
        self.keep_steps: dict[StageId, set[int]] = {}  # the steps at which a stage keeps its weights, for all the cells that share it
        self.trials: dict[CellId, tuple[Trial, ...]] = {}
        self._texts: dict[int, tuple[object, str]] = {}
        self._tuned: dict[tuple[int, int], tuple[object, tuple[RecipeSpec, ...]]] = {}
        self._recipes: dict[tuple[int, str, int, bool], tuple[RecipeSpec, RecipeSpec, str]] = {}
        self._sequences: dict[tuple[int, int], tuple[object, tuple[Stage, ...]]] = {}

    def add(self, cell: Cell) -> tuple[StageId, ...]:
        """The path of a cell, whose new stages are added."""
        if cell.tune is None:
            return self._add_path(cell, {})
        trials: dict[StageId, Trial] = {}  # by their last stages
        for values, recipe in zip(cell.tune.trials, self._recipes_of(cell, cell.tune), strict=True):
            path = self._add_path(replace(cell, recipe=recipe), values)
            trials.setdefault(path[-1], Trial(values=values, stages=path))
        self.trials[cell.id] = tuple(trials.values())
        paths = [trial.stages for trial in trials.values()]
        choice = (self._add_choice(cell, paths),) if len(paths) > 1 else ()
        return tuple(dict.fromkeys([*itertools.chain(*paths), *choice]))

    def _add_path(self, cell: Cell, values: Values) -> tuple[StageId, ...]:
        """The path of a cell, or of one of its trials, which trains with these tuned values; new stages are added."""
        before: list[tuple[StageId, Stage]] = []
        for stage in self._sequence(cell):
            added = self._add_stage(cell, stage, before, values)
            before.append((added, stage))
            if stage.keep_steps:
                self.keep_steps.setdefault(added, set()).update(stage.keep_steps)
        return tuple(path_stage for path_stage, _ in before)

    def _add_choice(self, cell: Cell, paths: Sequence[tuple[StageId, ...]]) -> StageId:
        """The id of the stage that chooses among these trials; a new one is added. It trains nothing."""
        added = choice_id(path[-1] for path in paths)
        if added not in self.stages:
            stage = Stage(name=CHOOSE, epochs=0, schedule="finetune", method=cell.method, start="parent")
            self.stages[added] = StageSpec(
                id=added, model=cell.model, data=cell.data, recipe=cell.recipe, seed=cell.seed, stage=stage, trials=tuple(paths)
            )
        return added

    def _recipes_of(self, cell: Cell, tune: TuneSpec) -> tuple[RecipeSpec, ...]:
        """The recipe of each trial, the same objects for all cells of one recipe."""
        key = (id(cell.recipe), id(tune))
        if key not in self._tuned:
            self._tuned[key] = ((cell.recipe, tune), tune.recipes(cell.recipe))
        return self._tuned[key][1]

    def _add_stage(self, cell: Cell, stage: Stage, before: Sequence[tuple[StageId, Stage]], values: Values) -> StageId:
        """The id of a stage that follows `before`; a new stage is added."""
        parent = before[-1][0] if before and stage.start != "scratch" else None
        keeping = (previous for previous, its_stage in before if stage.rewind_step in its_stage.keep_steps)
        rewind = next(keeping, None) if stage.start == "rewind" else None
        if stage.start != "scratch" and parent is None or stage.start == "rewind" and rewind is None:
            raise ValueError(f"{cell.method.name}: stage {stage.name!r} starts from {stage.start}, but no stage before it leaves those weights")
        recipe, recipe_text = self._recipe(cell.recipe, stage)
        teacher = before[0][0] if recipe.distill is not None and recipe.distill.file is None else None  # the dense training comes first
        model, data, stage_text = self._text(cell.model, model_identity), self._text(cell.data, data_identity), self._text(stage, stage_identity)
        added = stage_id(model, data, recipe_text, cell.seed, stage_text, parent, rewind, teacher)
        if added not in self.stages:
            self.stages[added] = StageSpec(
                id=added,
                model=cell.model,
                data=cell.data,
                recipe=recipe,
                seed=cell.seed,
                stage=stage,
                parent=parent,
                rewind=rewind,
                teacher=teacher,
                tuned=in_words(touching(values, stage.schedule)),
            )
        return added

    def _sequence(self, cell: Cell) -> tuple[Stage, ...]:
        """The stages of a cell's method under its recipe; before them the dense training, if it teaches and the method does not start with it."""
        key = (id(cell.method), id(cell.recipe))
        if key not in self._sequences:
            budget = Budget(epochs=cell.recipe.epochs, finetune_epochs=cell.recipe.finetune_epochs)
            stages = cell.method.stages(budget)
            taught = cell.recipe.distill is not None and cell.recipe.distill.file is None
            before = (trunk(budget),) if taught and not is_trunk(stages[0]) else ()
            self._sequences[key] = ((cell.method, cell.recipe), (*before, *stages))
        return self._sequences[key][1]

    def _recipe(self, recipe: RecipeSpec, stage: Stage) -> tuple[RecipeSpec, str]:
        """A recipe as a stage is given it, and its canonical text."""
        key = (id(recipe), stage.schedule, stage.epochs, is_trunk(stage))
        if key not in self._recipes:
            self._recipes[key] = (recipe, stage_recipe(recipe, stage), canonical(stage_recipe_identity(recipe, stage)))
        return self._recipes[key][1:]

    def _text(self, value: T, identity: Callable[[T], dict[str, Any]]) -> str:
        """The canonical text of a model, a data set or a stage."""
        if id(value) not in self._texts:
            self._texts[id(value)] = (value, canonical(identity(value)))
        return self._texts[id(value)][1]
