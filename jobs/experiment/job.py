"""The work of one process or SLURM task: stages to run, and the cells that pass through them."""

from collections.abc import Callable
from dataclasses import dataclass

from jobs.experiment.cell import Cell
from jobs.experiment.ids import StageId
from jobs.experiment.plugins import PluginCopy
from jobs.experiment.specs import ClusterSpec, StageSpec
from jobs.experiment.trials import Trial, leading_to, lost_stages, required


@dataclass(frozen=True, kw_only=True)
class PlannedCell:
    """A cell and the stages that lead to it, first stage first; of a tuned cell with the stages of all its trials."""

    cell: Cell
    stages: tuple[StageId, ...]
    trials: tuple[Trial, ...] = ()  # of a tuned cell, each once

    @property
    def required(self) -> tuple[StageId, ...]:
        """The stages without which the cell has no result."""
        return required(self.stages, [trial.stages for trial in self.trials])

    def lost(self, failed: Callable[[StageId], bool]) -> frozenset[StageId]:
        """The stages of its trials that cannot be reached any more. `failed`: whether a stage has failed."""
        return lost_stages([trial.stages for trial in self.trials], failed)

    def leading_to(self, stage: StageId) -> tuple[StageId, ...]:
        """The stages without which one of its stages cannot run."""
        return leading_to(stage, self.stages, [trial.stages for trial in self.trials])


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """The work of one job: stages, parents before their children, and every cell that passes through one of them."""

    plugins: tuple[PluginCopy, ...] = ()  # the first field: unpickling loads them before the methods among the others
    run: str  # run folder
    grid: str
    stages: tuple[StageSpec, ...]
    cells: tuple[PlannedCell, ...]
    cluster: ClusterSpec
