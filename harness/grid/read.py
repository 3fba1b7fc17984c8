"""From grid.yaml to cells, each with its id: the product of models, pruning methods, data, recipes and seeds, without the excluded cells.

Every mistake is reported at once, with file, line, key and the nearest valid name, before anything is written or queued. No torch is imported.
"""

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from harness.grid.axes import Axes, Choice, read_data, read_models, read_seeds
from harness.grid.cluster_profile import read_cluster
from harness.grid.evaluation import Evaluations, note_evaluations
from harness.grid.exclude import check_patterns, read_exclusions
from harness.grid.expansion import given_fields
from harness.grid.labels import name_problem
from harness.grid.methods import read_pruning
from harness.grid.notify import with_notify
from harness.grid.paths import expanded
from harness.grid.plugins import read_plugins
from harness.grid.recipes import read_recipes
from harness.grid.resources import Resources
from harness.grid.sizes import check_sizes
from harness.grid.tuning import read_tune, trial_choices, tuned_recipes
from harness.grid.yaml_source import GridError, Node, Report, read_yaml
from jobs.experiment.augment_limits import images_of_epoch
from jobs.experiment.cell import Cell
from jobs.experiment.identity import canonical, cell_id
from jobs.experiment.limits import oversized_batch, training_images, unreachable_rewind, untaught, untrained
from jobs.experiment.pretrained import pretrained_sha256
from jobs.experiment.specs import ClusterSpec, DataSpec, ModelSpec, RecipeSpec
from jobs.experiment.tuning import TuneSpec
from models.plugins.loading import Loaded
from models.pruning.base import Budget, PruningMethod
from models.registry import drop_path_option
from models.text import valid_names

KEYS = ("name", "data", "recipe", "tune", "models", "pruning", "seeds", "exclude", "cluster", "notify", "plugins")
MOST_CELLS = 1_000_000  # before `exclude`: a hundred times as many as a run folder has been tested with


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The content of a grid file."""

    name: str
    cells: tuple[Cell, ...]
    cluster: ClusterSpec
    path: Path
    source: str  # the file's text, for the snapshot in the run folder
    choices: tuple[Choice[object], ...] = ()  # whose values the cells share
    notes: tuple[str, ...] = ()  # what the user should know and need not mend
    plugins: tuple[Loaded, ...] = ()
    left_out: tuple[Cell, ...] = ()  # cells of the file that a budget does not pay

    def location(self, value: ModelSpec | PruningMethod | DataSpec | RecipeSpec, field: str = "") -> str:
        """The line and key of a part of a cell, or of one of its fields: 'grid.yaml:3: models[0]'. The file alone if no choice has this value."""
        choice = self.choice(value)
        if choice is None:
            return str(self.path)
        return f"{self.path}:{choice.line_of(field)}: {choice.key}" + (f".{field}" if field else "")

    def choice(self, value: object) -> Choice[object] | None:
        """The choice that has this very value."""
        return next((choice for choice in self.choices if choice.value is value), None)

    def resources(self, value: ModelSpec | PruningMethod) -> Resources | None:
        """What the entry of a model or a pruning gives its jobs in place of the profile's resources; nothing unless SLURM has the jobs."""
        choice = self.choice(value) if self.cluster.kind == "slurm" else None
        return choice.resources if choice else None


def read_grid(path: Path) -> Grid:
    """The grid in a file. Raises GridError with every mistake at once."""
    source, root = read_yaml(path)
    assert isinstance(root.value, dict)
    keys, report = root.value, Report(str(path))
    for key, node in keys.items():
        if key not in KEYS and not key.startswith("x-"):  # x-...: room for anchors
            report.add(node.line, key, f"unknown key{valid_names(key, KEYS)}")
    name = _name(keys.get("name"), report)
    plugins = read_plugins(keys, path.parent, report)
    if plugins is None:  # without their rows, all that follows would be held against the wrong tables
        raise GridError(report.problems)
    cluster = with_notify(read_cluster(keys.get("cluster"), path, report), keys.get("notify"), report)
    digest = partial(pretrained_sha256, memory=None if cluster.hash_data else expanded(cluster.cache))
    tune, recipes = _recipes(keys, path.parent, cluster, digest, report)
    axes = Axes(
        model=read_models(keys.get("models"), path.parent, report, digest),
        pruning=read_pruning(keys.get("pruning"), report),
        data=read_data(keys.get("data"), path.parent, report),
        recipe=recipes,
        seed=read_seeds(keys.get("seeds"), report),
    )
    trained = replace(axes, recipe=trial_choices(recipes, tune, keys["tune"])) if tune else axes
    check_patterns(keys.get("exclude"), axes.by_name(), report)
    left = _Left(axes, keys.get("exclude"), report)
    _check_steps(trained, left, report)
    _check_drop_path(trained, left, report)
    _check_budgets(axes, left, report)
    check_sizes(axes, cluster, left.together, report)
    evaluations = Evaluations()
    cells = () if report.problems else _cells(axes, evaluations, keys.get("exclude"), tune, report)
    if report.problems:
        raise GridError(report.problems)
    note_evaluations(axes, evaluations, report)
    choices = tuple(itertools.chain(*axes.by_name().values(), evaluations.resolved.values()))
    notes = tuple(map(str, report.notes))
    return Grid(name=name, cells=cells, cluster=cluster, path=path, source=source, choices=choices, notes=notes, plugins=tuple(plugins))


def _recipes(
    keys: Mapping[str, Node], folder: Path, cluster: ClusterSpec, digest: Callable[[Path], str | None], report: Report
) -> tuple[TuneSpec | None, list[Choice[RecipeSpec]]]:
    """(what `tune` says, every recipe)."""
    recipes = read_recipes(keys.get("recipe"), folder, cluster.ranks, report, digest)
    tune = read_tune(keys.get("tune"), report)
    return tune, tuned_recipes(recipes, tune, keys["tune"], cluster.ranks, report) if tune else recipes


def _name(node: Node | None, report: Report) -> str:
    """The grid's name, which is also its run folder's."""
    name = node.plain if node else None
    if problem := name_problem(name):
        report.add(node.line if node else 1, "name", problem)
    return str(name)


class _Left:
    """Tells which choices `exclude` leaves together in a cell. A list of patterns with a mistake leaves all."""

    def __init__(self, axes: Axes, exclude: Node | None, report: Report) -> None:
        self.axes = axes.by_name()
        readable = not any(problem.key.startswith("exclude") for problem in report.problems)
        self.exclusions = read_exclusions(exclude, self.axes, Report(report.file)) if readable else []

    def together(self, **fixed: Choice[object]) -> bool:
        """True if a cell has these choices, each given by the name of its axis."""
        axes = [[fixed[name]] if name in fixed else choices for name, choices in self.axes.items()]
        if not self.exclusions or math.prod(map(len, axes)) > MOST_CELLS:
            return True
        return any(not any(exclusion.drops(parts) for exclusion in self.exclusions) for parts in itertools.product(*axes))


def _check_budgets(axes: Axes, left: _Left, report: Report) -> None:
    """Reports methods that cannot run on the epochs of a recipe, and models that a recipe leaves with random weights."""
    for method, recipe in itertools.product(axes.pruning, axes.recipe):
        try:
            method.value.stages(_budget(recipe.value))
        except ValueError as error:
            if left.together(pruning=method, recipe=recipe):
                report.add(method.line, method.key, f"{error} (with the recipe of line {recipe.line})")
    for model, recipe in itertools.product(axes.model, axes.recipe):
        if (problem := untrained(model.value, recipe.value)) and left.together(model=model, recipe=recipe):
            report.add(recipe.line_of("epochs"), f"{recipe.key}.epochs", problem)
        if (problem := untaught(model.value, recipe.value)) and left.together(model=model, recipe=recipe):
            report.add(recipe.line_of("distill"), f"{recipe.key}.distill", problem)


def _budget(recipe: RecipeSpec) -> Budget:
    return Budget(epochs=recipe.epochs, finetune_epochs=recipe.finetune_epochs)


def _check_steps(axes: Axes, left: _Left, report: Report) -> None:
    """Reports batches that are larger than a data set, and rewind steps beyond the end of a training, if the number of images is known."""
    for recipe, data in itertools.product(axes.recipe, axes.data):
        images = training_images(data.value)
        if oversized := oversized_batch(recipe.value, data.value, images):
            if left.together(recipe=recipe, data=data):
                report.add(recipe.line_of("batch_size"), f"{recipe.key}.batch_size", oversized)
        elif images is not None:
            for method in axes.pruning:
                steps = images_of_epoch(recipe.value, images) // recipe.value.batch_size
                late = unreachable_rewind(method.value, _budget(recipe.value), steps)
                if late and left.together(recipe=recipe, data=data, pruning=method):
                    report.add(method.line_of("rewind_step"), method.key, f"{late} (with the recipe of line {recipe.line} and {data.value.source})")


def _check_drop_path(axes: Axes, left: _Left, report: Report) -> None:
    """Reports recipes with a drop_path for models that have no stochastic depth, or whose entry gives a rate of its own."""
    for recipe, model in itertools.product(axes.recipe, axes.model):
        if recipe.value.drop_path is None or not (problem := _drop_path_problem(recipe, model)):
            continue
        if left.together(recipe=recipe, model=model):
            report.add(recipe.line_of("drop_path"), f"{recipe.key}.drop_path", problem)


def _drop_path_problem(recipe: Choice[RecipeSpec], model: Choice[ModelSpec]) -> str | None:
    """Why a model cannot take the rate of a recipe, with the remedy, or None."""
    of_preset = recipe.of_data and recipe.entry is not None and "drop_path" not in given_fields(recipe.entry)
    option = drop_path_option(model.value.name)
    if option is None:
        return f"{model.value.name} has no stochastic depth; " + ("write drop_path: null" if of_preset else "leave drop_path out")
    if option not in model.value.options:
        return None
    remedy = "the preset gives one too: write drop_path: null" if of_preset else "give it in one of the two"
    return f"{model.names[0]} has a {option} of its own (line {model.line}); {remedy}"


def _cells(axes: Axes, evaluations: Evaluations, exclude: Node | None, tune: TuneSpec | None, report: Report) -> tuple[Cell, ...]:
    """The product of the axes, the seed varying fastest, without the excluded cells; mistakes of `exclude` go to the report."""
    count = math.prod(map(len, axes.by_name().values()))
    if count > MOST_CELLS:
        sizes = ", ".join(f"{len(choices)} of {name}" for name, choices in axes.by_name().items())
        report.add(1, "", f"the grid stands for {count} cells ({sizes}), and a grid may have at most {MOST_CELLS}; split it into several grids")
        return ()
    exclusions = read_exclusions(exclude, axes.by_name(), report)
    dropped = [0] * len(exclusions)
    cells: dict[str, Cell] = {}
    tune_text = canonical(tune.to_json()) if tune else ""
    seen = {tuple(map(id, parts)): evaluations.of(*parts) for parts in itertools.product(axes.model, axes.data, axes.recipe)}
    for parts in itertools.product(axes.model, axes.pruning, axes.data, axes.recipe, axes.seed):
        hits = [index for index, exclusion in enumerate(exclusions) if exclusion.drops(parts)]
        for index in hits:
            dropped[index] += 1
        if not hits:
            model, method, data, recipe, seed = parts
            cell = _cell(model, method, seen[id(model), id(data), id(recipe)], recipe, seed, tune, tune_text)
            if cells.setdefault(cell.id, cell) != cell:  # equal: one entry of data gives the evaluation that another leaves to the model
                report.add(1, "", f"two cells have the id {cell.id}; change the seed of one of them")
    for exclusion, count in zip(exclusions, dropped, strict=True):
        if not count and all(exclusion.matches):  # a part that matches nothing has been reported
            report.add(exclusion.line, exclusion.key, "matches no cell")
    if not cells and not report.problems:
        report.add(exclude.line if exclude else 1, "exclude", "leaves no cell")
    return tuple(cells.values())


def _cell(
    model: Choice[ModelSpec],
    method: Choice[PruningMethod],
    data: Choice[DataSpec],
    recipe: Choice[RecipeSpec],
    seed: Choice[int],
    tune: TuneSpec | None,
    tune_text: str,
) -> Cell:
    return Cell(
        id=cell_id(model.identity, method.identity, data.identity, recipe.identity, seed.value, tune_text),
        model=model.value,
        method=method.value,
        data=data.value,
        recipe=recipe.value,
        seed=seed.value,
        label=method.label,
        tune=tune,
    )
