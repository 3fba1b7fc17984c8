"""From grid.yaml to cells, each with its id: the Cartesian product of models, pruning methods, data, recipes and seeds, less what is excluded.

Every mistake is reported at once, with file, line, key and the nearest valid name, before anything is written or queued. No torch is imported.
"""

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.grid.axes import Choice, read_data, read_models, read_pruning, read_recipes, read_seeds
from harness.grid.cluster_profile import read_cluster
from harness.grid.exclude import check_patterns, read_exclusions
from harness.grid.yaml_source import GridError, Node, Report, read_yaml
from jobs.experiment.cell import Cell
from jobs.experiment.identity import cell_id
from jobs.experiment.limits import batch_clash, step_beyond, training_images
from jobs.experiment.specs import ClusterSpec
from models.pruning.base import Budget
from models.text import valid_names

KEYS = ("name", "data", "recipe", "models", "pruning", "seeds", "exclude", "cluster")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # a folder's name


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What a grid file stands for."""

    name: str
    cells: tuple[Cell, ...]
    cluster: ClusterSpec
    path: Path
    source: str  # the file's text, to be frozen in the run folder
    choices: tuple[Choice, ...] = ()  # whose values the cells share

    def place(self, value: Any, field: str = "") -> str:
        """Where a model, method, data set or recipe of a cell stands: 'grid.yaml:3: models[0]', with `field` its line and key; else the file."""
        found = next((choice for choice in self.choices if choice.value is value), None)
        if found is None:
            return str(self.path)
        return f"{self.path}:{found.line_of(field)}: {found.key}" + (f".{field}" if field else "")


def read_grid(path: Path) -> Grid:
    """The grid in a file. Raises GridError with every mistake at once."""
    source, root = read_yaml(path)
    assert isinstance(root.value, dict)
    keys, report = root.value, Report(str(path))
    for key, node in keys.items():
        if key not in KEYS and not key.startswith("x-"):  # x-...: room for anchors
            report.add(node.line, key, f"unknown key{valid_names(key, KEYS)}")
    name = _name(keys.get("name"), report)
    cluster = read_cluster(keys.get("cluster"), path, report)
    axes = {
        "model": read_models(keys.get("models"), report),
        "pruning": read_pruning(keys.get("pruning"), report),
        "data": read_data(keys.get("data"), path.parent, report),
        "recipe": read_recipes(keys.get("recipe"), cluster.ranks, report),
        "seed": read_seeds(keys.get("seeds"), report),
    }
    _check_budgets(axes["pruning"], axes["recipe"], report)
    _check_steps(axes["pruning"], axes["recipe"], axes["data"], report)
    check_patterns(keys.get("exclude"), axes, report)
    cells = () if report.problems else _cells(axes, keys.get("exclude"), report)
    if report.problems:
        raise GridError(report.problems)
    return Grid(name=name, cells=cells, cluster=cluster, path=path, source=source, choices=tuple(itertools.chain(*axes.values())))


def _name(node: Node | None, report: Report) -> str:
    """The grid's name, which names its run folder."""
    if node is None:
        report.add(1, "name", "missing: the run folder is called after it")
        return ""
    if not isinstance(node.value, str) or not NAME.fullmatch(node.value):
        report.add(node.line, "name", f"must be letters, digits, '.', '_' and '-', got {node.plain!r}")
    return str(node.value)


def _check_budgets(methods: list[Choice], recipes: list[Choice], report: Report) -> None:
    """Reports methods that cannot run on the epochs of a recipe."""
    for method, recipe in itertools.product(methods, recipes):
        try:
            method.value.stages(Budget(epochs=recipe.value.epochs, finetune_epochs=recipe.value.finetune_epochs))
        except ValueError as error:
            report.add(method.line, method.key, f"{error} (with the recipe of line {recipe.line})")


def _check_steps(methods: list[Choice], recipes: list[Choice], sets: list[Choice], report: Report) -> None:
    """Reports batches that are larger than a data set, and steps to rewind to that its training never makes; where its size is known."""
    for recipe, data in itertools.product(recipes, sets):
        clash, images = batch_clash(recipe.value, data.value), training_images(data.value)
        if clash:
            report.add(recipe.line_of("batch_size"), f"{recipe.key}.batch_size", clash)
        elif images is not None:
            budget = Budget(epochs=recipe.value.epochs, finetune_epochs=recipe.value.finetune_epochs)
            for method in methods:
                if late := step_beyond(method.value, budget, images // recipe.value.batch_size):
                    report.add(method.line_of("rewind_step"), method.key, f"{late} (with the recipe of line {recipe.line} and {data.value.source})")


def _cells(axes: Mapping[str, list[Choice]], exclude: Node | None, report: Report) -> tuple[Cell, ...]:
    """The product of the axes, the seed varying fastest, less the excluded ones; mistakes of `exclude` go to the report."""
    exclusions = read_exclusions(exclude, axes, report)
    dropped = [0] * len(exclusions)
    cells: dict[str, Cell] = {}
    for parts in itertools.product(*axes.values()):
        hits = [index for index, exclusion in enumerate(exclusions) if exclusion.drops(parts)]
        for index in hits:
            dropped[index] += 1
        if not hits:
            cell = _cell(*parts)
            if cells.setdefault(cell.id, cell) is not cell:
                report.add(1, "", f"two cells have the id {cell.id}; change the seed of one")
    for exclusion, count in zip(exclusions, dropped):
        if not count and all(exclusion.matches):  # a part that matches nothing has been reported
            report.add(exclusion.line, exclusion.key, "matches no cell")
    if not cells and not report.problems:
        report.add(exclude.line if exclude else 1, "exclude", "leaves no cell")
    return tuple(cells.values())


def _cell(model: Choice, method: Choice, data: Choice, recipe: Choice, seed: Choice) -> Cell:
    return Cell(
        id=cell_id(model.identity, method.identity, data.identity, recipe.identity, seed.value),
        model=model.value,
        method=method.value,
        data=data.value,
        recipe=recipe.value,
        seed=seed.value,
        label=method.label,
    )
