"""Data as a cell has them: with what its recipe's preset says of them; official checkpoints are evaluated as their authors do. The grid's own values
take their place.
"""

import dataclasses
import itertools
from collections.abc import Collection
from dataclasses import dataclass, field

from harness.grid.axes import Axes, Choice
from harness.grid.expansion import given_fields
from harness.grid.yaml_source import Report
from jobs.experiment.identity import canonical, data_identity, plain
from jobs.experiment.published import EVALUATION, evaluated_as_published
from jobs.experiment.specs import DataSpec, ModelSpec, RecipeSpec


@dataclass(kw_only=True)
class Evaluations:
    """The choices of data with what presets and models say of them. Equal ones share a choice, so that the data are checked once."""

    resolved: dict[tuple[str, DataSpec], Choice[DataSpec]] = field(default_factory=dict)  # by the entry's key and the data that came of it

    def of(self, model: Choice[ModelSpec], data: Choice[DataSpec], recipe: Choice[RecipeSpec]) -> Choice[DataSpec]:
        """`data` as cells of this model and recipe have them."""
        given = given_fields(data.entry) if data.entry else set()
        value = evaluated_as_published(model.value, with_preset(data.value, recipe, given), given)
        if value == data.value:
            return data
        return self.resolved.setdefault((data.key, value), _resolved(data, value))


def with_preset(data: DataSpec, recipe: Choice[RecipeSpec], given: Collection[str]) -> DataSpec:
    """`data` with the values of the recipe's preset, but for the fields `given`."""
    return dataclasses.replace(data, **{name: value for name, value in recipe.of_data.items() if name not in given})


def _resolved(data: Choice[DataSpec], value: DataSpec) -> Choice[DataSpec]:
    return dataclasses.replace(data, value=value, identity=canonical(data_identity(value)), fields=plain(value))


def note_evaluations(axes: Axes, evaluations: Evaluations, report: Report) -> None:
    """Notes, for each set of data, the models that are evaluated otherwise than the entry, or the recipe's preset, says."""
    for data in axes.data:
        named: dict[str, list[str]] = {}
        for recipe, model in itertools.product(axes.recipe, axes.model):
            given = given_fields(data.entry) if data.entry else set()
            asked, seen = with_preset(data.value, recipe, given), evaluations.of(model, data, recipe).value
            how = ", ".join(f"{name} {getattr(seen, name)}" for name in EVALUATION if getattr(seen, name) != getattr(asked, name))
            if how and model.names[0] not in named.setdefault(how, []):
                named[how].append(model.names[0])
        for how, labels in named.items():
            report.note(data.line, data.key, f"note: {how} for {', '.join(labels)}, as published; a value in the grid takes its place")
