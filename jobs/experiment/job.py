"""The work of one process or SLURM task: stages to run, and the cells that pass through them."""

from dataclasses import dataclass

from jobs.experiment.cell import Cell
from jobs.experiment.ids import StageId
from jobs.experiment.plugins import PluginCopy
from jobs.experiment.specs import ClusterSpec, StageSpec


@dataclass(frozen=True, kw_only=True)
class PlannedCell:
    """A cell and the stages that lead to it, first stage first."""

    cell: Cell
    stages: tuple[StageId, ...]


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """The work of one job: stages, parents before their children, and every cell that passes through one of them."""

    plugins: tuple[PluginCopy, ...] = ()  # the first field: unpickling loads them before the methods among the others
    run: str  # run folder
    grid: str
    stages: tuple[StageSpec, ...]
    cells: tuple[PlannedCell, ...]
    cluster: ClusterSpec
