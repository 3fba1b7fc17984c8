"""Gradual pruning while training."""

from dataclasses import dataclass
from typing import ClassVar

from models.pruning.base import Budget, Progress, Pruner, Stage
from models.pruning.knobs import Targeted, check_share
from models.pruning.schedule import Schedule, sparsity_at


@dataclass(frozen=True, kw_only=True)
class Dynamic(Targeted):
    """Train from scratch while the sparsity rises on a schedule; the weights of least absolute value go, and none comes back.

    Zhu and Gupta, arXiv 1710.01878: the cubic schedule and the mask that is drawn again every `interval` steps between two points of the training.
    """

    name: ClassVar[str] = "dynamic"
    initial_sparsity: float = 0.0
    schedule: Schedule = "cosine"
    begin_fraction: float = 0.1  # of the stage's steps: the first mask, at the initial sparsity
    end_fraction: float = 0.75  # the mask at the final sparsity; the steps that are left train under it
    interval: int = 16  # optimizer steps between masks
    regrow: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("initial_sparsity", self.initial_sparsity)
        if self.initial_sparsity > self.sparsity:
            raise ValueError(f"initial_sparsity must be at most sparsity, {self.sparsity:g}, got {self.initial_sparsity:g}")
        if not 0.0 <= self.begin_fraction < self.end_fraction <= 1.0:
            raise ValueError(f"0 <= begin_fraction < end_fraction <= 1 must hold, got {self.begin_fraction:g} and {self.end_fraction:g}")
        if self.interval < 1:
            raise ValueError(f"interval must be at least 1 step, got {self.interval}")
        if self.regrow:
            raise ValueError("regrow: true needs dense weights that go on under the mask, which the enforcement of exact zeros does not keep; only false is valid")

    def stages(self, budget: Budget) -> tuple[Stage, ...]:
        """One stage as long as the control's two. ValueError without an epoch, as masks are drawn between steps."""
        epochs = budget.epochs + budget.finetune_epochs
        if epochs < 1:
            raise ValueError("dynamic prunes while it trains: epochs + finetune_epochs must be at least 1, got 0")
        return (Stage(name="train", epochs=epochs, method=self),)

    def after_step(self, pruner: Pruner, progress: Progress) -> None:
        """Draws the mask anew every `interval` steps, within the one that is there, and for the last time at the end of the schedule."""
        begin, end = self.bounds(progress.steps)
        if not (progress.step == end or begin <= progress.step < end and (progress.step - begin) % self.interval == 0):
            return
        from models.pruning.masks import choose

        p = 1.0 if progress.step == end else (progress.step - begin) / (end - begin)
        sparsity = sparsity_at(self.schedule, p, self.initial_sparsity, self.sparsity)
        magnitudes = {name: pruner.read_weight(name).abs() for name in pruner.names}
        pruner.set_masks(choose(magnitudes, sparsity, self.scope, within=pruner.masks))

    def bounds(self, steps: int) -> tuple[int, int]:
        """The steps, counted from 1, of the first mask and of the last one in a stage of `steps` steps."""
        end = max(1, round(self.end_fraction * steps))
        return min(max(1, round(self.begin_fraction * steps)), end), end
