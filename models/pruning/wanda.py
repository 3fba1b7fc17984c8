"""Pruning by weights and their input activations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from models.pruning.base import Budget, NetworkView, Stage
from models.pruning.knobs import Scoped, check_count, check_share, finetune, trunk
from models.pruning.scope import DENSE_BY_DEFAULT, prunable_names

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


SLACK = 0.01  # by which rounding within rows may miss the sparsity


@dataclass(frozen=True, kw_only=True)
class Wanda(Scoped):
    """Train; in every output row drop the weights of the least product of |w| and the norm of its input; fine-tune.

    Sun et al., arXiv 2306.11695, eq. 1: S_ij = |W_ij| ||X_j||_2, compared within row i. The norms are those over the first `batches` global batches
    of training images, by the trained network in evaluation mode. In convolutions a row is an output channel, and each kernel position has its own
    norm. round(sparsity * n) of a row's n weights are dropped, but never a whole row: at 90%, a depthwise row of four weights keeps one.
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

    def check(self, network: Module) -> None:
        """Raises ValueError, as others do, and for layers whose inputs cannot be seen."""
        from models.pruning.inputs import check_inputs

        super().check(network)
        check_inputs(network, prunable_names(network, self.groups))

    def check_reach(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """ValueError if rows are so short that keeping one weight of each misses the target by more than SLACK."""
        total = sum(map(math.prod, shapes.values()))
        rows = [(shape[0], math.prod(shape[1:])) for shape in shapes.values()]
        gone = sum(count * zeros_of_row(width, self.sparsity) for count, width in rows)
        if self.sparsity - gone / total > SLACK:
            short = sum(count for count, width in rows if zeros_of_row(width, self.sparsity) < round(self.sparsity * width))
            reach = f"sparsity {self.sparsity:g} is out of reach: {gone} of {total} prunable weights, {gone / total:.3g}, can go"
            raise ValueError(f"{reach}, as each of {short} short rows keeps one; lower it, or leave their groups out")

    def begin(self, network: NetworkView) -> None:
        """Draws the mask from the trained weights and their inputs."""
        norms = network.input_norms(self.batches)
        scores = {name: network.read_weight(name).abs() * norms[name] for name in network.names}
        for name, mask in network.kept().items():
            scores[name] = scores[name].masked_fill(~mask, -1.0)  # what is gone counts first, before the weights of an input that is always 0
        network.set_masks({name: drop_in_rows(score, self.sparsity) for name, score in scores.items()})


def zeros_of_row(width: int, sparsity: float) -> int:
    """The number of a row's `width` weights that are dropped."""
    return min(round(sparsity * width), width - 1)


def drop_in_rows(scores: Tensor, sparsity: float) -> Tensor:
    """The mask that drops each row's lowest scores, of equal scores the first. scores: (out, ...)."""
    import torch

    rows = scores.flatten(1)
    lowest = rows.argsort(dim=1, stable=True)[:, : zeros_of_row(rows.shape[1], sparsity)]
    return torch.ones_like(rows, dtype=torch.bool).scatter_(1, lowest, False).view(scores.shape)
