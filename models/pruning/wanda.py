"""Pruning by weights and the activations that they meet."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from models.pruning.base import Budget, NetworkView, Stage
from models.pruning.knobs import Scoped, check_count, check_share, finetune, trunk
from models.pruning.scope import DENSE_BY_DEFAULT

if TYPE_CHECKING:
    from torch import Tensor


SLACK = 0.01  # of the sparsity, that may be missed by rounding within rows


@dataclass(frozen=True, kw_only=True)
class Wanda(Scoped):
    """Train; in every output row drop the weights of least |w| times the norm of the input that w meets; fine-tune.

    Sun et al., arXiv 2306.11695, eq. 1: S_ij = |W_ij| ||X_j||_2, compared within row i. The norms are those over the first `batches` global batches
    of training images, by the trained network in evaluation mode. In convolutions a row is an output channel, and each place of the kernel has its
    own norm. round(sparsity * n) of a row's n weights go, but never a whole row: depthwise rows of four keep one at 90%.
    """

    name: ClassVar[str] = "wanda"
    sparsity: float
    batches: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("sparsity", self.sparsity)
        check_count("batches", self.batches, "batch")
        if without := [group for group in self.groups if group in DENSE_BY_DEFAULT]:
            raise ValueError(f"groups must be weights of layers, whose inputs have norms; leave out {', '.join(without)}")

    def stages(self, budget: Budget) -> tuple[Stage, ...]:
        """The dense training, then fine-tuning under the mask."""
        return trunk(budget), finetune(budget, self)

    def check_reach(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """ValueError where rows are so short that keeping one weight of each misses the target by more than SLACK."""
        total = sum(map(math.prod, shapes.values()))
        rows = [(shape[0], math.prod(shape[1:])) for shape in shapes.values()]
        gone = sum(count * zeros_of_row(width, self.sparsity) for count, width in rows)
        if self.sparsity - gone / total > SLACK:
            short = sum(count for count, width in rows if zeros_of_row(width, self.sparsity) < round(self.sparsity * width))
            reach = f"sparsity {self.sparsity:g} is out of reach: {gone} of {total} prunable weights, {gone / total:.3g}, can go"
            raise ValueError(f"{reach}, as each of {short} short rows keeps one; lower it, or leave their groups out")

    def begin(self, pruner: NetworkView) -> None:
        """Draws the mask from the trained weights and their inputs."""
        norms = pruner.input_norms(self.batches)
        pruner.set_masks({name: drop_in_rows(pruner.read_weight(name).abs() * norms[name], self.sparsity) for name in pruner.names})


def zeros_of_row(width: int, sparsity: float) -> int:
    """How many of a row's `width` weights go."""
    return min(round(sparsity * width), width - 1)


def drop_in_rows(scores: Tensor, sparsity: float) -> Tensor:
    """The mask that drops each row's lowest scores, the first of equal ones first. scores: (out, ...)."""
    import torch

    rows = scores.flatten(1)
    order = rows.argsort(dim=1, stable=True)[:, : zeros_of_row(rows.shape[1], sparsity)]
    return torch.ones_like(rows, dtype=torch.bool).scatter_(1, order, False).view(scores.shape)
