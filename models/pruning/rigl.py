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

    Evci et al., arXiv 1911.11134, algorithm 1: a fraction f(t) = drop_fraction / 2 (1 + cos(pi t / t_end)) of each parameter's living weights is
    exchanged; grown weights start at zero. Unlike in the paper, the optimizer also steps on the batch whose gradients grew them.
    """

    name: ClassVar[str] = "rigl"
    needs_gradients: ClassVar[bool] = True
    sparsity: float
    distribution: Literal["erk", "uniform"] = "erk"  # of the sparsity over the parameters
    drop_fraction: float = 0.3
    interval: int = 100  # optimizer steps
    end_fraction: float = 0.75  # of the stage's steps; the remaining steps train under the last mask

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
        """ValueError if a parameter never has a weight."""
        check_living(self.zeros(shapes), shapes, f"sparsity {self.sparsity:g} with distribution: {self.distribution}")

    def begin(self, network: NetworkView) -> None:
        """Draws the first mask at random, with the zeros of each parameter set by `distribution`."""
        from models.pruning.masks import drop
        from models.pruning.random_masks import random_scores

        scores = random_scores(network, network.seed)
        zeros = self.zeros({name: tuple(score.shape) for name, score in scores.items()})
        network.set_masks({name: drop({name: score}, zeros[name])[name] for name, score in scores.items()})

    def after_backward(self, network: NetworkView, progress: Progress) -> None:
        """Exchanges weights every `interval` steps."""
        end = self.end_fraction * progress.steps
        if progress.step % self.interval or progress.step >= end:
            return
        fraction = self.drop_fraction / 2 * (1 + math.cos(math.pi * progress.step / end))
        network.set_masks({name: self.exchanged(network, name, fraction) for name in network.names})

    def exchanged(self, network: NetworkView, name: str, fraction: float) -> "Tensor":
        """A parameter's next mask: a fraction of its living weights dropped, and as many weights grown. A weight just dropped may grow again."""
        from models.pruning.masks import drop, living

        mask = network.masks[name]
        alive = living(mask)
        count = min(round(fraction * alive), mask.numel() - alive)
        kept = drop({name: network.read_weight(name).abs()}, mask.numel() - alive + count, {name: mask})[name]
        growth = network.read_gradient(name).abs().masked_fill(kept, -1.0)  # below every candidate
        return kept | drop({name: growth}, mask.numel() - count)[name]
