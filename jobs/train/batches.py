"""What a stage reads: the two shapes of a loader."""

from collections.abc import Generator, Iterator
from typing import Protocol

from torch import Tensor


class Batches(Protocol):
    """Micro-batches of this rank: images (b, 3, H, W) float32, labels (b,) int64."""

    steps_per_epoch: int

    def epoch(self, epoch: int, first_step: int = 0) -> Generator[tuple[Tensor, Tensor]]:
        """Those of one epoch from optimizer step `first_step` on."""


class Samples(Protocol):
    """This rank's share of a split, each sample once over all ranks."""

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """As above."""
