"""`tune:` of a grid: lists of values for keys of the recipe, and how many of their combinations every cell tries."""

import dataclasses
import math
from collections.abc import Sequence

from harness.grid.axes import Choice
from harness.grid.expansion import choices, given_fields
from harness.grid.yaml_source import Node, Report
from jobs.experiment.identity import canonical, plain, recipe_identity
from jobs.experiment.limits import RECIPE, recipe_conflicts, violations
from jobs.experiment.specs import RecipeSpec
from jobs.experiment.trials import in_words
from jobs.experiment.tuning import BUDGET, FIXED, SEED, TUNABLE, TuneSpec
from models.text import valid_names
from models.typed import fields_of, shown

MOST_POINTS = 10_000  # of a space
MOST_TRIALS = 1_000  # of a cell
EXAMPLE = "such as tune: {finetune_lr: [1.0e-3, 2.0e-3], budget: 2}"


def read_tune(node: Node | None, report: Report) -> TuneSpec | None:
    """The space and the budget; None if the grid has none, or if it has a mistake."""
    if node is None or node.value is None:
        return None
    if not isinstance(node.value, dict):
        report.add(node.line, "tune", f"expected a mapping of recipe keys to lists of values, {EXAMPLE}, got {shown(node.plain)}")
        return None
    known = len(report.problems)
    space = {key: _values(key, child, report) for key, child in node.value.items() if key not in (BUDGET, SEED)}
    points = math.prod(map(len, space.values()))
    if not space:
        report.add(node.line, "tune", f"it names no key of the recipe; give lists of values, {EXAMPLE}")
    elif points > MOST_POINTS:
        report.add(node.line, "tune", f"its lists stand for {points} points, and a space may have at most {MOST_POINTS}; shorten them")
    if len(report.problems) > known:
        return None
    seed = _number(node.value.get(SEED), SEED, 0, 2**32 - 1, 0, report)
    budget = _budget(node, points, report)
    return None if len(report.problems) > known else TuneSpec(space=space, budget=budget, seed=seed)


def _values(key: str, node: Node, report: Report) -> tuple[object, ...]:
    """The values of a key of the space."""
    path = f"tune.{key}"
    if key in FIXED:
        report.add(node.line, path, f"it cannot be tuned: {FIXED[key]}")
    elif key not in TUNABLE:
        report.add(node.line, path, f"unknown key{valid_names(key, [*TUNABLE, BUDGET, SEED])}")
    elif not isinstance(node.value, list):
        report.add(node.line, path, f"expected a list of values to try, got {shown(node.plain)}{node.remark}")
    else:
        hint = fields_of(RecipeSpec)[key]
        values = [value for index, item in enumerate(node.value) for value in choices(item, hint, f"{path}[{index}]", report)]
        texts = [canonical(plain(value, hint)) for value in values]
        twice = next((text for text in texts if texts.count(text) > 1), None)
        if twice is not None:
            report.add(node.line, path, f"{twice} is given twice")
        elif len(node.value) < 2:
            report.add(node.line, path, "a key is tuned over two values or more; write a single value in the recipe")
        return tuple(values)
    return ()


def _number(node: Node | None, key: str, least: int, most: int, default: int, report: Report) -> int:
    """A whole number beside the keys of the recipe."""
    if node is None:
        return default
    if type(node.value) is int and least <= node.value <= most:
        return node.value
    report.add(node.line, f"tune.{key}", f"expected a whole number from {least} to {most}, got {shown(node.plain)}{node.remark}")
    return default


def _budget(node: Node, points: int, report: Report) -> int:
    """The number of trials; all points of the space if the grid gives none."""
    assert isinstance(node.value, dict)
    given = node.value.get(BUDGET)
    budget = _number(given, BUDGET, 2, MOST_TRIALS, points, report)
    line = given.line if given else node.line
    if budget > points:
        report.add(line, f"tune.{BUDGET}", f"{budget} trials, and the space has {points} points; give at most {points}, or more values")
    elif given is None and points > MOST_TRIALS:
        report.add(line, f"tune.{BUDGET}", f"missing: the space has {points} points, and a cell may try at most {MOST_TRIALS} of them")
    return budget


def tuned_recipes(recipes: Sequence[Choice[RecipeSpec]], tune: TuneSpec, node: Node, ranks: int, report: Report) -> list[Choice[RecipeSpec]]:
    """The recipes as tuned cells hold them: see `TuneSpec.base`. Reports recipes that give a tuned key, and trials that cannot be."""
    for recipe in recipes:
        for key in sorted(given_fields(recipe.entry) & tune.space.keys()) if recipe.entry else ():
            report.add(recipe.line_of(key), f"{recipe.key}.{key}", f"it is tuned (line {node.line_of([key])}); leave it out here")
        if (idle := _idle(recipe.value, tune)) is not None:
            report.add(node.line_of([idle]), f"tune.{idle}" if idle in tune.space else "tune", f"the {_UNTRAINED[idle]} (line {recipe.line})")
        for value, values in zip(tune.recipes(recipe.value), tune.trials, strict=True):
            for broken in [*violations(value, RECIPE)] or [*recipe_conflicts(value, ranks)]:
                where = f"tune.{broken.field}" if broken.field in tune.space else "tune"
                report.add(node.line_of([broken.field]), where, f"{broken} (with {in_words(values)})")
    return [_as_tuned(recipe, tune.base(recipe.value)) for recipe in recipes]


_UNTRAINED = {
    "finetune_lr": "recipe has no epoch of fine-tuning, so it changes no network; raise finetune_epochs",
    "": "recipe has no epoch, so no trial changes a network; raise epochs or finetune_epochs",
}


def _idle(recipe: RecipeSpec, tune: TuneSpec) -> str | None:
    """The tuned key that changes no network, empty for all of them; None if each may change one."""
    if recipe.epochs + recipe.finetune_epochs == 0:
        return ""
    return "finetune_lr" if "finetune_lr" in tune.space and recipe.finetune_epochs == 0 else None


def _as_tuned(choice: Choice[RecipeSpec], value: RecipeSpec) -> Choice[RecipeSpec]:
    return dataclasses.replace(choice, value=value, identity=canonical(recipe_identity(value)), fields=plain(value))


def trial_choices(recipes: Sequence[Choice[RecipeSpec]], tune: TuneSpec, node: Node) -> list[Choice[RecipeSpec]]:
    """The recipe of every trial, for checks of a recipe with the other choices. `exclude` drops it where it drops the tuned recipe."""
    return [
        Choice(value=value, identity=recipe.identity, fields={}, line=node.line, key="tune", entry=node, of_data=recipe.of_data)
        for recipe in recipes
        for value in tune.recipes(recipe.value)
    ]
