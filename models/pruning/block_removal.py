"""Removal of whole blocks, or of the state spaces in them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from models.pruning.base import Budget, NetworkView, PruningMethod, Stage
from models.pruning.knobs import check_count, check_share, finetune, trunk

if TYPE_CHECKING:
    from torch.nn import Module

    from models.pruning.structure import Structure


@dataclass(frozen=True, kw_only=True)
class BlockRemoval(PruningMethod):
    """Train; remove one block after another, each time the one without which the loss is lowest; fine-tune what is left.

    Mamba-Shedder (Munoz et al., arXiv 2501.17088, section 3; it has perplexity for the loss). The loss is that of the training, over the first
    `batches` global batches of training images, by the network in evaluation mode. Each of them is tried, so that removing k of n takes
    n + (n - 1) + ... + (n - k + 1) passes over these batches. Of equal losses the first block in the network goes.

    `unit: ssm` removes the state space of a mixer alone: each scan, with the projections that make its B, C and Delta, gives its input instead. The
    mixer's other projections, its convolution, norm and gate stay. `models.blocks` has the blocks of each family.
    """

    name: ClassVar[str] = "block_removal"
    removes_blocks: ClassVar[bool] = True
    blocks: int | None = None  # how many go; blocks or ratio
    ratio: float | None = None  # the fraction that goes, rounded
    unit: Literal["block", "ssm"] = "block"
    batches: int = 4  # global batches

    def __post_init__(self) -> None:
        if (self.blocks is None) == (self.ratio is None):
            given = "neither" if self.blocks is None else "both"
            raise ValueError(f"give blocks, the number that goes, or ratio, the fraction that goes; got {given}")
        if self.blocks is not None:
            check_count("blocks", self.blocks, "block")
        check_share("ratio", self.ratio or 0.0)
        check_count("batches", self.batches, "batch")

    def stages(self, budget: Budget) -> tuple[Stage, ...]:
        """The dense training, then fine-tuning of the smaller network. Blocks are removed even without epochs to fine-tune."""
        return trunk(budget), finetune(budget, self)

    def check(self, network: Module) -> None:
        """Raises ValueError, with numbers, if the network has nothing of the kind, or not so many."""
        self.count(self.candidates(network))

    def candidates(self, network: Module) -> tuple[str, ...]:
        """The names of what can go, in the network's order. ValueError if there is nothing."""
        from models.blocks import blocks_of, scans_of

        candidates = blocks_of(network) if self.unit == "block" else scans_of(network)
        if not candidates:
            family = type(network).__name__
            none = "no residual blocks" if self.unit == "block" else "no state space; use unit: block"
            raise ValueError(f"{family} has {none}: there is nothing to remove")
        return candidates

    def count(self, candidates: Sequence[str]) -> int:
        """How many of them go. ValueError, with numbers, if that is none, or too many: one block stays."""
        total = len(candidates)
        most = total - 1 if self.unit == "block" else total
        asked = self.blocks if self.blocks is not None else round((self.ratio or 0.0) * total)
        if not 1 <= asked <= most:
            noun = "blocks" if self.unit == "block" else "state spaces"
            given = f"blocks {self.blocks}" if self.blocks is not None else f"ratio {self.ratio:g}"
            can = f"from 1 to {most} can go" if most else "one must stay"
            raise ValueError(f"{given} removes {asked} of the network's {total} {noun}; {can}")
        return asked

    def begin(self, network: NetworkView) -> None:
        """Chooses greedily, then removes."""
        assert network.module is not None
        candidates = self.candidates(network.module)
        count = self.count(candidates)
        tries = sum(len(candidates) - gone for gone in range(count))
        network.say(f"{self.name}: {count} of {len(candidates)} go, {tries} networks x {self.batches} batches are tried")
        notes = [f"{self.name}: loss {network.losses([self.structure(())], self.batches)[0]:.6g} over {self.batches} batches of training images"]
        gone: tuple[str, ...] = ()
        while len(gone) < count:
            left = [name for name in candidates if name not in gone]
            losses = network.losses([self.structure((*gone, name)) for name in left], self.batches)
            loss, best = lowest(losses)
            gone = (*gone, left[best])
            notes.append(f"without {left[best]}: {loss:.6g}")
            network.say(f"{self.name}: {len(gone)} of {count}: {notes[-1]}")
        network.remove(self.structure(gone, candidates, ("; ".join(notes),)))

    def structure(self, gone: Sequence[str], candidates: Sequence[str] = (), notes: tuple[str, ...] = ()) -> Structure:
        """The removal of some of the candidates."""
        from models.pruning.structure import Structure

        blocks, scans = (tuple(gone), ()) if self.unit == "block" else ((), tuple(gone))
        counts = {name if self.unit == "block" else f"{name}.scan": 1 for name in candidates}
        return Structure(kept={}, counts=counts, notes=notes, blocks=blocks, scans=scans)


def lowest(losses: Sequence[float]) -> tuple[float, int]:
    """The lowest loss and its position, the first of equal ones. A loss that is no number is the highest."""
    return min((loss if math.isfinite(loss) else math.inf, position) for position, loss in enumerate(losses))
