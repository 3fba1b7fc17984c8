"""Problems that would stop a job on its node and can be known before it is queued. The checks import torch, so they run only if cells are to run."""

import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.grid.read import Grid
from jobs.experiment.cell import Cell
from jobs.experiment.published import EVALUATION
from jobs.experiment.specs import ClusterSpec, DataSpec, ModelSpec, image_size
from models.pruning.registry import method_label


def preflight(grid: Grid, cells: Sequence[Cell]) -> list[str]:
    """The problems of a grid, each with its line: those of its networks, and those of this machine."""
    return [*machine_problems(grid, cells), *model_problems(grid, cells)]


def can_be_planned_elsewhere(cluster: ClusterSpec) -> bool:
    """True if the jobs are for SLURM and this machine has none: a dry run here plans them, and their cluster has the data."""
    return cluster.kind == "slurm" and not has_slurm()


def machine_problems(grid: Grid, cells: Sequence[Cell]) -> list[str]:
    """What this machine lacks: data, files of weights, a scan that is not built, a scheduler that it cannot reach or that would refuse the jobs."""
    if not cells:
        return []
    of_the_cluster = [*kernel_problems(grid.cluster, cells), *scheduler_problems(grid.cluster)]
    return [*data_problems(grid, cells), *weights_problems(grid, cells), *(f"{grid.path}: {problem}" for problem in of_the_cluster)]


def data_problems(grid: Grid, cells: Sequence[Cell]) -> list[str]:
    """Data sets that this machine cannot prepare."""
    from jobs.data.prepare import check_data

    return [f"{grid.location(data)}: {problem}" for data in files_of(cells) for problem in check_data(data)]


def files_of(cells: Sequence[Cell]) -> list[DataSpec]:
    """The data of cells, each once, however they are evaluated: a large folder is looked through once."""
    evaluation: dict[str, Any] = dict.fromkeys(EVALUATION)
    sets: dict[DataSpec, DataSpec] = {}
    for data in {id(cell.data): cell.data for cell in cells}.values():
        sets.setdefault(replace(data, **evaluation), data)
    return list(sets.values())


def data_notes(grid: Grid, cells: Sequence[Cell]) -> list[str]:
    """What the user should know of data that can be prepared, each with its line."""
    if not cells:
        return []
    from jobs.data import prepare

    return [f"{grid.location(data)}: note: {note}" for data in files_of(cells) for note in prepare.data_notes(data)]


def weights_problems(grid: Grid, cells: Sequence[Cell]) -> list[str]:
    """Pretrained files that are not there, or cannot be read. Those that can are held against their networks in `model_problems`."""
    models = {id(cell.model): cell.model for cell in cells if unread(cell.model)}
    problems = []
    for model in models.values():
        path = Path(model.options["pretrained"])
        reason = f"{path} is a folder: give the file in it" if path.is_dir() else f"there is no file {path}"
        if path.is_file():
            reason = f"{path} cannot be read: ask its owner for the right to read it"
        where = "" if path.exists() else "; a relative path is looked for beside the grid, then in the current folder"
        problems.append(f"{grid.location(model, 'pretrained')}: {reason}{where}")
    return problems


def unread(model: ModelSpec) -> bool:
    """True if a model has a pretrained file that this machine could not read."""
    return "pretrained" in model.options and model.pretrained_sha256 is None


def model_problems(grid: Grid, cells: Sequence[Cell]) -> list[str]:
    """Networks that cannot be built for their images, or cannot be pruned as the grid asks. Each is built once, without memory for its weights."""
    if not cells:
        return []
    import torch

    from models.layer_order import layer_numbers
    from models.layers import weight_decay_groups
    from models.registry import create_model

    problems = []
    distinct: dict[tuple[int, int], list[Cell]] = {}
    for cell in cells:
        distinct.setdefault((id(cell.model), image_size(cell.data)), []).append(cell)
    for (_, size), cells_of_network in distinct.items():
        model = cells_of_network[0].model
        try:
            with torch.device("meta"):
                network = create_model(model.name, 10, size, **(model.architecture if unread(model) else model.options))
            weight_decay_groups(network, decay_ssm=True)
        except Exception as error:  # a model that a user added may raise any
            problems.append(f"{grid.location(model)}: model {model.label}: {reason_of(error)}")
            continue
        for recipe in {id(cell.recipe): cell.recipe for cell in cells_of_network if cell.recipe.layer_decay is not None}.values():
            try:
                layer_numbers(name for name, _ in network.named_parameters())
            except ValueError as error:
                problems.append(f"{grid.location(recipe, 'layer_decay')}: {model.label}: {error}")
        for method in {id(cell.method): cell.method for cell in cells_of_network}.values():
            try:
                method.check(network)
            except Exception as error:  # so may a method
                problems.append(f"{grid.location(method)}: {method_label(method)} on {model.label}: {reason_of(error)}")
    return problems


def reason_of(error: Exception) -> str:
    """A ValueError's own words. Any other error is a fault in the code of a model or a method, and is named with its line there."""
    if isinstance(error, ValueError):
        return str(error)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    message = " ".join(str(error).split()) or "no message"
    return f"cannot be built: {type(error).__name__}: {message} (in {frame.filename}, line {frame.lineno})"


def kernel_problems(cluster: ClusterSpec, cells: Sequence[Cell]) -> list[str]:
    """A C++ scan that the recipe needs and that is not built or does not load, if this machine is to run it."""
    import torch

    from models.ssm.kernel import KernelMissing, load_kernel

    on_gpu = torch.cuda.is_available() and (cluster.gpus_per_node > 0 or cluster.kind == "debug")
    if cluster.kind == "slurm" or on_gpu or all(cell.recipe.scan == "reference" for cell in cells):
        return []
    try:
        load_kernel()
    except (KernelMissing, ImportError) as error:
        return [f"recipe.scan: {error}"]
    return []


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
