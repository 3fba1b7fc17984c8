"""Problems that would stop a job on its node and can be known before it is queued. The checks import torch, so they run only if cells are to run."""

from collections.abc import Sequence

from harness.grid.read import Grid
from jobs.experiment.cell import Cell
from jobs.experiment.specs import ClusterSpec, image_size
from models.pruning.registry import method_label


def preflight(grid: Grid, cells: Sequence[Cell]) -> list[str]:
    """The problems of a grid, each with its line: those of its networks, and those of this machine."""
    return [*machine_problems(grid, cells), *model_problems(grid, cells)]


def can_be_planned_elsewhere(cluster: ClusterSpec) -> bool:
    """True if the jobs are for SLURM and this machine has none: a dry run here plans them, and their cluster has the data."""
    return cluster.kind == "slurm" and not has_slurm()


def machine_problems(grid: Grid, cells: Sequence[Cell]) -> list[str]:
    """What this machine lacks: data, a scan that is not built, a scheduler that it cannot reach or that would refuse the jobs."""
    if not cells:
        return []
    of_the_cluster = [*kernel_problems(grid.cluster, cells), *scheduler_problems(grid.cluster)]
    return [*data_problems(grid, cells), *(f"{grid.path}: {problem}" for problem in of_the_cluster)]


def data_problems(grid: Grid, cells: Sequence[Cell]) -> list[str]:
    """Data sets that this machine cannot prepare."""
    from jobs.data.prepare import check_data

    distinct = {id(cell.data): cell.data for cell in cells}
    return [f"{grid.location(data)}: {problem}" for data in distinct.values() for problem in check_data(data)]


def data_notes(grid: Grid, cells: Sequence[Cell]) -> list[str]:
    """What the user should know of data that can be prepared, each with its line."""
    if not cells:
        return []
    from jobs.data import prepare

    distinct = {id(cell.data): cell.data for cell in cells}
    return [f"{grid.location(data)}: note: {note}" for data in distinct.values() for note in prepare.data_notes(data)]


def model_problems(grid: Grid, cells: Sequence[Cell]) -> list[str]:
    """Networks that cannot be built for their images, or cannot be pruned as the grid asks. Each is built once, without memory for its weights."""
    if not cells:
        return []
    import torch

    from models.registry import create_model

    problems = []
    distinct: dict[tuple[int, int], list[Cell]] = {}
    for cell in cells:
        distinct.setdefault((id(cell.model), image_size(cell.data)), []).append(cell)
    for (_, size), cells_of_network in distinct.items():
        model = cells_of_network[0].model
        try:
            with torch.device("meta"):
                network = create_model(model.name, 10, size, **model.options)
        except ValueError as error:
            problems.append(f"{grid.location(model)}: model {model.label}: {error}")
            continue
        for method in {id(cell.method): cell.method for cell in cells_of_network}.values():
            try:
                method.check(network)
            except ValueError as error:
                problems.append(f"{grid.location(method)}: {method_label(method)} on {model.label}: {error}")
    return problems


def kernel_problems(cluster: ClusterSpec, cells: Sequence[Cell]) -> list[str]:
    """A C++ scan that the recipe needs and that is not built, if this machine is to run it."""
    import torch

    from models.ssm.kernel import KernelMissing, load_kernel

    on_gpu = torch.cuda.is_available() and (cluster.gpus_per_node > 0 or cluster.kind == "debug")
    if cluster.kind == "slurm" or on_gpu or all(cell.recipe.scan == "reference" for cell in cells):
        return []
    try:
        load_kernel()
    except KernelMissing as error:
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
