"""What one process or SLURM task is handed: stages to run, and the cells that pass through them."""

from dataclasses import dataclass

from jobs.experiment.cell import Cell
from jobs.experiment.specs import ClusterSpec, StageSpec


@dataclass(frozen=True, kw_only=True)
class PlannedCell:
    """A cell and the stages that lead to it, first stage first."""

    cell: Cell
    stages: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """What one job is handed: stages in an order in which parents come first, and every cell that passes through one of them."""

    run: str  # run folder
    grid: str
    stages: tuple[StageSpec, ...]
    cells: tuple[PlannedCell, ...]
    cluster: ClusterSpec
