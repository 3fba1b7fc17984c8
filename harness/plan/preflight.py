"""Problems that would stop a job on its node and can be known before it is queued. The checks import torch, so they run only if cells are to run."""

import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.grid.read import Grid
from harness.plan.containers import container_problems
from harness.plan.gpu_checks import device_problems
from harness.plan.notify_checks import notify_problems
from harness.plan.plugin_checks import MOST_PARAMETERS, check_counts, check_forward
from harness.plan.sizes import sizes_of_cells
from jobs.cluster.slurm import slurm_answers
from jobs.experiment.augment_limits import images_of_epoch
from jobs.experiment.cell import Cell
from jobs.experiment.limits import oversized_batch, unreachable_rewind
from jobs.experiment.published import EVALUATION
from jobs.experiment.specs import DENSE, ClusterSpec, DataSpec, ModelSpec, RecipeSpec, image_size
from models.plugins.modules import line_in_plugin
from models.plugins.tables import origin
from models.pruning.base import Budget
from models.pruning.registry import method_label

if TYPE_CHECKING:
    from torch import nn

    from models.pretrained import Differences

SHORT_MIN = 15  # a job's first minute goes to imports and to opening the data


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What the checks of a grid say, each with its line."""

    problems: list[str] = field(default_factory=list)  # any of them ends the launch
    notes: list[str] = field(default_factory=list)


def preflight(grid: Grid, cells: Sequence[Cell]) -> Findings:
    """What is wrong with the networks of a grid and with this machine, and what the user should know of the data."""
    machine = check_machine(grid, cells)
    return Findings(problems=[*machine.problems, *model_problems(grid, cells)], notes=machine.notes)


def can_be_planned_elsewhere(cluster: ClusterSpec) -> bool:
    """True if the jobs are for SLURM and none answers this machine: a dry run here plans them, and their cluster has the data."""
    return cluster.kind == "slurm" and not (has_slurm() and slurm_answers())


def check_machine(grid: Grid, cells: Sequence[Cell]) -> Findings:
    """What this machine lacks: data, files of weights, a scan that is not built, a scheduler that it cannot reach or that would refuse the jobs."""
    if not cells:
        return Findings()
    data = check_data(grid, cells)
    files = [*weights_problems(grid, cells), *teacher_problems(grid, cells)]
    of_the_cluster = (*cache_problems(grid.cluster), *container_problems(grid.cluster, cells), *notify_problems(grid.cluster))
    own = [f"{grid.path}: {problem}" for problem in of_the_cluster]
    problems = list(dict.fromkeys([*data.problems, *files, *own, *size_problems(grid, cells)]))
    return replace(data, problems=problems, notes=list(dict.fromkeys([*data.notes, *short_notes(grid, cells)])))


def short_notes(grid: Grid, cells: Sequence[Cell]) -> Iterator[str]:
    """Sizes of jobs that end within minutes and leave checkpoints only after whole epochs."""
    for where, cluster, _ in sizes_of_cells(grid, cells):
        if cluster.kind == "slurm" and cluster.timeout_min <= SHORT_MIN and cluster.checkpoint_steps is None:
            advice = "an epoch and its checkpoint have to fit in, or set checkpoint_steps"
            yield f"{where}: note: jobs end after {cluster.timeout_min} min and are queued again: {advice}"


def size_problems(grid: Grid, cells: Sequence[Cell]) -> Iterator[str]:
    """What jobs of each size lack: devices, or a scheduler that would take them. What is about no key of theirs is told once."""
    of_all: set[str] = set()
    for where, cluster, users in sizes_of_cells(grid, cells):
        for problem in (*device_problems(cluster, users), *scheduler_problems(cluster)):
            of_an_entry = problem.startswith("cluster") and cluster is not grid.cluster
            if problem not in of_all:
                yield f"{where}.{problem}" if of_an_entry else f"{grid.path}: {problem}"
            if problem.startswith("cluster: "):
                of_all.add(problem)


def check_data(grid: Grid, cells: Sequence[Cell]) -> Findings:
    """Data sets that this machine cannot prepare, settings that do not suit their number of images, and notes on them. Each is looked at once."""
    from jobs.data.prepare import images_for_training, look_at_data

    findings = Findings()
    for data in files_of(cells):
        look = look_at_data(data)
        findings.problems.extend(f"{grid.location(data)}: {problem}" for problem in look.problems)
        findings.notes.extend(f"{grid.location(data)}: note: {note}" for note in look.notes)
        if look.labels is not None and not look.problems:
            of_data = [cell for cell in cells if stored(cell.data) == stored(data)]
            findings.problems.extend(step_problems(grid, of_data, images_for_training(data, look.labels)))
    return findings


def files_of(cells: Sequence[Cell]) -> list[DataSpec]:
    """The data of cells, each once, however they are evaluated: a large folder is looked through once."""
    sets: dict[DataSpec, DataSpec] = {}
    for data in {id(cell.data): cell.data for cell in cells}.values():
        sets.setdefault(stored(data), data)
    return list(sets.values())


def stored(data: DataSpec) -> DataSpec:
    """What tells one set of files from another."""
    evaluation: dict[str, Any] = dict.fromkeys(EVALUATION)
    return replace(data, **evaluation)


def step_problems(grid: Grid, cells: Sequence[Cell], images: int) -> list[str]:
    """Batches that are larger than a data set with so many images for training, and rewind steps that a training on it never reaches."""
    problems = []
    for cell in {(id(cell.recipe), id(cell.method)): cell for cell in cells}.values():
        recipe = cell.recipe
        if oversized := oversized_batch(recipe, cell.data, images):
            problems.append(f"{grid.location(recipe, 'batch_size')}: {oversized}")
            continue
        budget = Budget(epochs=recipe.epochs, finetune_epochs=recipe.finetune_epochs)
        if late := unreachable_rewind(cell.method, budget, images_of_epoch(recipe, images) // recipe.batch_size):
            problems.append(f"{grid.location(cell.method, 'rewind_step')}: {late} (on the {images} training images of {cell.data.source})")
    return list(dict.fromkeys(problems))


def weights_problems(grid: Grid, cells: Sequence[Cell]) -> list[str]:
    """Pretrained files that are not there, or cannot be read. Those that can are held against their networks in `model_problems`."""
    models = {id(cell.model): cell.model for cell in cells if unread(cell.model)}
    problems = []
    for model in models.values():
        problems.append(f"{grid.location(model, 'pretrained')}: {unreadable(Path(model.options['pretrained']))}")
    return problems


def unreadable(path: Path) -> str:
    """Why a file of weights cannot be read, with the remedy."""
    if path.is_dir():
        return f"{path} is a folder: give the file in it"
    if path.is_file():
        return f"{path} cannot be read: ask its owner for the right to read it"
    where = "" if path.exists() else "; a relative path is looked for beside the grid, then in the current folder"
    return f"there is no file {path}{where}"


def teacher_problems(grid: Grid, cells: Sequence[Cell]) -> list[str]:
    """Teachers' files that are not there, or cannot be read. Those that can are held against the networks in `model_problems`."""
    recipes = {id(cell.recipe): cell.recipe for cell in cells}.values()
    files = [
        (recipe, Path(recipe.distill.file)) for recipe in recipes if recipe.distill and recipe.distill.file and not recipe.distill.teacher_sha256
    ]
    return [f"{grid.location(recipe, 'distill')}.teacher: {unreadable(path)}; or write `teacher: {DENSE}`" for recipe, path in files]


def unread(model: ModelSpec) -> bool:
    """True if a model has a pretrained file that this machine could not read."""
    return "pretrained" in model.options and model.pretrained_sha256 is None


def model_problems(grid: Grid, cells: Sequence[Cell]) -> list[str]:
    """Networks that cannot be built for their images, or cannot be pruned as the grid asks. Each is built once, without memory for its weights."""
    if not cells:
        return []
    import torch

    from models.layers import weight_decay_groups
    from models.registry import create_model
    from models.timm_models import check_logits, is_timm
    from models.without_compiler import start_meta_device

    start_meta_device()
    problems = []
    distinct: dict[tuple[int, int], list[Cell]] = {}
    for cell in cells:
        distinct.setdefault((id(cell.model), image_size(cell.data)), []).append(cell)
    for (_, size), cells_of_network in distinct.items():
        model = cells_of_network[0].model
        try:
            with torch.device("meta"):
                network = create_model(model.name, 10, size, **model.architecture)
                differences = differences_from_file(network, model)
            if differences and differences.positions:
                print(f"{grid.location(model, 'pretrained')}: note: {model.label}: {differences.positions}", file=sys.stderr)
            weight_decay_groups(network, decay_ssm=True)
            if is_timm(model.name):
                check_logits(network, size, 10)
            plugin = origin("models", model.name)
            if plugin:
                check_forward(model.name, model.architecture, size)
            if (plugin or is_timm(model.name)) and sum(parameter.numel() for parameter in network.parameters()) <= MOST_PARAMETERS:
                check_counts(model.name, model.architecture, size)
        except Exception as error:  # a model that a user added may raise any
            problems.append(f"{grid.location(model)}: model {model.label}: {reason_of(error)}")
            continue
        recipes = {id(cell.recipe): cell.recipe for cell in cells_of_network}
        trained = [recipe for cell in {id(cell.recipe): cell for cell in cells_of_network}.values() for recipe in cell.recipes]
        problems += [problem for recipe in trained for problem in recipe_problems(grid, model, recipe, network, size)]
        if differences and differences.headless and any(recipe.epochs + recipe.finetune_epochs == 0 for recipe in recipes.values()):
            remedy = "give a file with a head, or raise finetune_epochs"
            problems.append(f"{grid.location(model, 'pretrained')}: {model.label}: {differences.fresh_head}, and no epoch trains it: {remedy}")
        for method in {id(cell.method): cell.method for cell in cells_of_network}.values():
            try:
                method.check(network)
            except Exception as error:  # so may a method
                problems.append(f"{grid.location(method)}: {method_label(method)} on {model.label}: {reason_of(error)}")
    return problems


def recipe_problems(grid: Grid, model: ModelSpec, recipe: RecipeSpec, network: "nn.Module", size: int) -> Iterator[str]:
    """What of a recipe cannot be done with a network."""
    from models.layer_order import layers_of

    if recipe.layer_decay is not None:
        try:
            layers_of(network)
        except ValueError as error:
            yield f"{grid.location(recipe, 'layer_decay')}: {model.label}: {error}"
    if recipe.distill is not None and (problem := teacher_misfit(model, recipe, size)):
        yield f"{grid.location(recipe, 'distill')}.teacher: {model.label}: {problem}"


def differences_from_file(network: "nn.Module", model: ModelSpec) -> "Differences | None":
    """What of the model's file is not loaded as it stands there; None without a file that can be read. ValueError if the file does not fit."""
    if "pretrained" not in model.options or unread(model):
        return None
    from models.pretrained import load_pretrained

    return load_pretrained(network, Path(model.options["pretrained"]), model.options.get("pretrained_key"))


def teacher_misfit(model: ModelSpec, recipe: RecipeSpec, size: int) -> str | None:
    """Why the weights in a teacher's file do not fit a model, or None. A file that cannot be read is named by `teacher_problems`."""
    distill = recipe.distill
    if distill is None or distill.file is None or distill.teacher_sha256 is None:
        return None
    import torch

    from models.registry import create_model

    try:
        with torch.device("meta"):
            create_model(model.name, 10, size, Path(distill.file), pretrained_key=distill.key, **model.architecture)
    except ValueError as error:
        return str(error).replace("pretrained: ", "", 1)
    return None


def reason_of(error: Exception) -> str:
    """A ValueError's own words. Any other error is a fault in the code of a model or a method, and is named with its line there."""
    plugin = line_in_plugin(error)
    if isinstance(error, ValueError):
        return f"{error} ({plugin})" if plugin else str(error)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    message = " ".join(str(error).split()) or "no message"
    return f"cannot be built: {type(error).__name__}: {message} (in {plugin or f'{frame.filename}, line {frame.lineno}'})"


def cache_problems(cluster: ClusterSpec) -> list[str]:
    """A cache that has no path, or that this machine's jobs could not write. A cluster's nodes may have another disk there."""
    try:
        cache = Path(cluster.cache).expanduser().absolute()
    except RuntimeError:
        remedy = "set HOME, or cluster.cache to a folder that can be written"
        return [f"cluster.cache: {cluster.cache}: the system knows no such home folder (HOME is {os.environ.get('HOME', 'not set')}): {remedy}"]
    if cluster.kind == "slurm":
        return []
    nearest = next(parent for parent in (cache, *cache.parents) if parent.exists())
    if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
        return []
    reason = f"{nearest} cannot be written" if nearest.is_dir() else f"{nearest} is no folder"
    return [f"cluster.cache: {cache} cannot hold data: {reason}: set cluster.cache to a folder that can be written"]


def scheduler_problems(cluster: ClusterSpec) -> list[str]:
    """A scheduler that this machine cannot reach, or that would refuse the jobs."""
    if cluster.kind != "slurm":
        return []
    if has_slurm():
        from jobs.cluster.slurm_limits import slurm_problems

        return slurm_problems(cluster)
    return ["cluster: no srun on this machine, so it cannot submit to SLURM; launch on a login node, or set 'cluster: local'"]


def has_slurm() -> bool:
    """True if this machine can submit to SLURM."""
    from submitit import SlurmExecutor

    return SlurmExecutor.affinity() > 0
