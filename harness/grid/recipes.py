"""The recipes of a grid: entries with or without a preset."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from harness.grid.axes import Choice, ReadSpec, distinct, read_specs, spec_choice
from harness.grid.paths import absolute_path
from harness.grid.yaml_source import Node, Report
from jobs.experiment.identity import recipe_identity
from jobs.experiment.limits import RECIPE, recipe_conflicts
from jobs.experiment.presets import PRESETS, shown
from jobs.experiment.pretrained import pretrained_sha256
from jobs.experiment.specs import RecipeSpec


def read_recipes(
    node: Node | None, folder: Path, ranks: int, report: Report, digest: Callable[[Path], str | None] = pretrained_sha256
) -> list[Choice[RecipeSpec]]:
    """Every recipe; the default if the grid has none. `ranks` divide a batch among them.

    The relative path of a teacher is looked for in `folder`, the grid's own, then in the current one. `digest`: of a file's content.
    """
    presets = {name: preset.recipe_values() for name, preset in PRESETS.items()}
    recipes = read_specs(node, "recipe", RecipeSpec, RECIPE, lambda recipe: recipe_conflicts(recipe, ranks), report, presets)
    return distinct([_choice(read, with_teacher(read.value, folder, digest), report) for read in recipes], report)


def with_teacher(recipe: RecipeSpec, folder: Path, digest: Callable[[Path], str | None]) -> RecipeSpec:
    """`recipe` with the absolute path of its teacher's file and the digest of the content; None if it cannot be read."""
    distill = recipe.distill
    if distill is None or distill.file is None:
        return recipe
    path = absolute_path(distill.file, folder)
    return dataclasses.replace(recipe, distill=dataclasses.replace(distill, teacher=str(path), teacher_sha256=digest(path)))


def _choice(read: ReadSpec[RecipeSpec], recipe: RecipeSpec, report: Report) -> Choice[RecipeSpec]:
    _check_distill(read, report)
    choice = spec_choice(read, recipe, recipe_identity)
    if read.preset is None:
        return choice
    preset = PRESETS[read.preset]
    given = {name: value for name, value in preset.recipe_values().items() if name not in read.written}
    values = ", ".join(f"{name} {shown(value)}" for name, value in given.items())
    data = ", ".join(f"{name} {shown(value)}" for name, value in preset.data_values().items())
    report.note(read.entry.line, read.key, f"note: preset {read.preset}: {values}; of data, where the grid gives none: {data}")
    return dataclasses.replace(choice, of_data=preset.data_values())


def _check_distill(read: ReadSpec[RecipeSpec], report: Report) -> None:
    """Reports parts of a teacher that would enter the id and change nothing."""
    distill = read.value.distill
    if distill is not None and distill.teacher_sha256 is not None:
        line = read.entry.line_of(["distill", "teacher_sha256"])
        report.add(line, f"{read.key}.distill.teacher_sha256", "it is no key of a grid: the launch reads the teacher's file; leave it out")
    if distill is not None and distill.file is None and distill.key is not None:
        line = read.entry.line_of(["distill", "key"])
        report.add(line, f"{read.key}.distill.key", "it chooses among the weights of a file, and the teacher is no file: leave it out")
