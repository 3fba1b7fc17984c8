"""2:4 semi-structured pruning, a pattern that NVIDIA GPUs since Ampere multiply faster."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from models.pruning.base import Budget, NetworkView, Stage
from models.pruning.knobs import Scoped, finetune, trunk

if TYPE_CHECKING:
    from torch import Tensor

KEPT, BLOCK = 2, 4


@dataclass(frozen=True, kw_only=True)
class SemiStructured(Scoped):
    """Train, keep the two largest of every four neighbours along a matrix's inputs, fine-tune. Mishra et al., arXiv 2104.08378, sections 3 and 4.

    Only matrices whose inputs are a multiple of four, as torch.sparse.to_sparse_semi_structured requires; the other parameters stay dense.
    """

    name: ClassVar[str] = "semi_structured"

    @property
    def keeps_pattern(self) -> bool:
        """True: two of every four."""
        return True

    def stages(self, budget: Budget) -> tuple[Stage, ...]:
        """The dense training, then fine-tuning under the mask."""
        return trunk(budget), finetune(budget, self)

    def check_reach(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """ValueError if no parameter takes the pattern."""
        check_pattern(shapes)

    def begin(self, network: NetworkView) -> None:
        """Draws the mask from the trained weights."""
        network.set_masks({name: two_of_four(weight) for name, weight in network.weights().items()})


def check_pattern(shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises ValueError if none of these parameters takes the pattern."""
    if not any(map(takes_pattern, shapes.values())):
        largest = sorted(shapes.items(), key=lambda item: -math.prod(item[1]))[:3]
        given = ", ".join(f"{name} {shape}" for name, shape in largest)
        none = f"0 of {len(shapes)} prunable parameters are matrices whose inputs are a multiple of {BLOCK}"
        raise ValueError(f"{none}: {given}; choose other groups")


def takes_pattern(shape: Sequence[int]) -> bool:
    """True for a matrix, (out, in), whose inputs divide into blocks."""
    return len(shape) == 2 and shape[1] % BLOCK == 0


def two_of_four(weight: Tensor) -> Tensor:
    """The mask of a matrix (out, in) by absolute value; of equal neighbours the later is kept. All True if the pattern does not apply."""
    import torch

    if not takes_pattern(weight.shape):
        return torch.ones_like(weight, dtype=torch.bool)
    blocks = weight.abs().reshape(-1, BLOCK)
    ascending = blocks.argsort(dim=1, stable=True)
    mask = torch.ones_like(blocks, dtype=torch.bool).scatter_(1, ascending[:, : BLOCK - KEPT], False)
    return mask.view(weight.shape)
