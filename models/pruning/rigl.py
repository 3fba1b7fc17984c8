"""Sparse training from the first step to the last."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from models.pruning.allocation import erk
from models.pruning.base import Budget, NetworkView, Progress, Stage
from models.pruning.knobs import Scoped, check_count, check_living, check_share, from_scratch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class RigL(Scoped):
    """Train from scratch under a mask of constant sparsity; every `interval` steps drop the smallest weights and grow those of the largest gradient.

    Evci et al., arXiv 1911.11134, algorithm 1: a share f(t) = drop_fraction / 2 (1 + cos(pi t / t_end)) of each parameter's living weights is
    exchanged; grown weights start at zero. Unlike there, the optimizer also steps on the batch whose gradients grew them.
    """

    name: ClassVar[str] = "rigl"
    needs_gradients: ClassVar[bool] = True
    sparsity: float
    distribution: Literal["erk", "uniform"] = "erk"  # of the sparsity over the parameters
    drop_fraction: float = 0.3
    interval: int = 100  # optimizer steps
    end_fraction: float = 0.75  # of the stage's steps; the steps that are left train under the last mask

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("sparsity", self.sparsity)
        check_share("drop_fraction", self.drop_fraction)
        check_count("interval", self.interval, "step")
        if not 0.0 <= self.end_fraction <= 1.0:
            raise ValueError(f"end_fraction must be in [0, 1], got {self.end_fraction:g}")

    def stages(self, budget: Budget) -> tuple[Stage, ...]:
        """One stage as long as the control's two. ValueError without an epoch."""
        return from_scratch(budget, self)

    def zeros(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
        """Zeros of each parameter, from the first step to the last."""
        if self.distribution == "erk":
            return erk(shapes, self.sparsity)
        return {name: round(self.sparsity * math.prod(shape)) for name, shape in shapes.items()}

    def check_reach(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """ValueError where a parameter never has a weight."""
        check_living(self.zeros(shapes), shapes, f"sparsity {self.sparsity:g} with distribution: {self.distribution}")

    def begin(self, pruner: NetworkView) -> None:
        """Draws the first mask by lot, with the zeros of each parameter set by `distribution`."""
        from models.pruning.masks import drop
        from models.pruning.random_masks import draw

        lots = draw(pruner, pruner.seed)
        zeros = self.zeros({name: tuple(lot.shape) for name, lot in lots.items()})
        pruner.set_masks({name: drop({name: lot}, zeros[name])[name] for name, lot in lots.items()})

    def after_backward(self, pruner: NetworkView, progress: Progress) -> None:
        """Exchanges weights where it is time to."""
        end = self.end_fraction * progress.steps
        if progress.step % self.interval or progress.step >= end:
            return
        share = self.drop_fraction / 2 * (1 + math.cos(math.pi * progress.step / end))
        pruner.set_masks({name: self.exchanged(pruner, name, share) for name in pruner.names})

    def exchanged(self, pruner: NetworkView, name: str, share: float) -> "Tensor":
        """A parameter's next mask: `share` of its living weights dropped, as many grown, which may be ones that were just dropped."""
        from models.pruning.masks import drop, living

        mask = pruner.masks[name]
        alive = living(mask)
        count = min(round(share * alive), mask.numel() - alive)
        kept = drop({name: pruner.read_weight(name).abs()}, mask.numel() - alive + count, {name: mask})[name]
        growth = pruner.read_gradient(name).abs().masked_fill(kept, -1.0)  # below every candidate
        return kept | drop({name: growth}, mask.numel() - count)[name]
