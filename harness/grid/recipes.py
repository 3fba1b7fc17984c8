"""The recipes of a grid: entries with or without a preset."""

import dataclasses

from harness.grid.axes import Choice, ReadSpec, distinct, read_specs, spec_choice
from harness.grid.yaml_source import Node, Report
from jobs.experiment.identity import recipe_identity
from jobs.experiment.limits import RECIPE, recipe_conflicts
from jobs.experiment.presets import PRESETS, shown
from jobs.experiment.specs import RecipeSpec


def read_recipes(node: Node | None, ranks: int, report: Report) -> list[Choice[RecipeSpec]]:
    """Every recipe; the default if the grid has none. `ranks` divide a batch among them."""
    presets = {name: preset.recipe_values() for name, preset in PRESETS.items()}
    recipes = read_specs(node, "recipe", RecipeSpec, RECIPE, lambda recipe: recipe_conflicts(recipe, ranks), report, presets)
    return distinct([_choice(read, report) for read in recipes], report)


def _choice(read: ReadSpec[RecipeSpec], report: Report) -> Choice[RecipeSpec]:
    choice = spec_choice(read, read.value, recipe_identity)
    if read.preset is None:
        return choice
    preset = PRESETS[read.preset]
    recipe = {name: value for name, value in preset.recipe_values().items() if name not in read.written}
    values = ", ".join(f"{name} {shown(value)}" for name, value in recipe.items())
    data = ", ".join(f"{name} {shown(value)}" for name, value in preset.data_values().items())
    report.note(read.entry.line, read.key, f"note: preset {read.preset}: {values}; of data, where the grid gives none: {data}")
    return dataclasses.replace(choice, of_data=preset.data_values())
