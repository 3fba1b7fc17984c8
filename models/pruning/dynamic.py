"""Gradual pruning while training."""

from dataclasses import dataclass
from typing import ClassVar

from models.pruning.base import Budget, Progress, Pruner, Stage
from models.pruning.knobs import Gradual, from_scratch
from models.pruning.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class Dynamic(Gradual):
    """Train from scratch while the sparsity rises on a schedule; the weights of least absolute value go, and none comes back.

    Zhu and Gupta, arXiv 1710.01878: the cubic schedule and the mask that is drawn again every `interval` steps between two points of the training.
    """

    name: ClassVar[str] = "dynamic"
    schedule: Schedule = "cosine"
    regrow: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.regrow:
            raise ValueError("regrow must be false: true needs dense weights that live on under the mask, and exact zeros leave none")

    def stages(self, budget: Budget) -> tuple[Stage, ...]:
        """One stage as long as the control's two. ValueError without an epoch, as masks are drawn between steps."""
        return from_scratch(budget, self)

    def after_step(self, pruner: Pruner, progress: Progress) -> None:
        """Draws the mask anew where one is due, within the one that is there."""
        sparsity = self.target(self.schedule, progress)
        if sparsity is None:
            return
        from models.pruning.masks import choose

        magnitudes = {name: pruner.read_weight(name).abs() for name in pruner.names}
        pruner.set_masks(choose(magnitudes, sparsity, self.scope, within=pruner.masks))
