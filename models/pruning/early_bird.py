"""Early-bird tickets: structured pruning as soon as the mask stops changing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from models.pruning.base import Budget, NetworkView, Progress, PruningMethod, Stage
from models.pruning.knobs import Scope, check_count, check_share, from_scratch
from models.pruning.units import DEFAULT_KINDS, check_kinds, reasons_of, units_of

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from models.pruning.structure import Group


@dataclass(frozen=True, kw_only=True)
class EarlyBird(PruningMethod):
    """Train with a gate on every channel, head and hidden unit, all gates under L1. Draw a mask of units at the end of every epoch. When the last
    masks agree, remove the units that the newest mask drops, and train the smaller network for the rest of the budget, on the same schedule.

    You et al., arXiv 1909.11957, section 3 and algorithm 1: masks drop the lowest `ratio` of all |gate|; a FIFO holds the last five; the ticket is
    found when the normalised Hamming distances of the newest mask to each of the others are at most epsilon. Their gates are BatchNorm's scales.
    Ours are the scales of the norms that scale a group's units, or learnable factors where no norm does (see `models.pruning.gates`).
    """

    name: ClassVar[str] = "early_bird"
    needs_gradients: ClassVar[bool] = True
    removes_units: ClassVar[bool] = True
    ratio: float  # of units, not of weights
    epsilon: float = 0.1
    fifo: int = 5  # masks
    l1: float = 1e-4  # added to a gate's gradient, times its sign
    scope: Scope = "global"
    units: tuple[str, ...] = DEFAULT_KINDS
    search_epochs: int | None = None  # after which the last mask is taken; None: the recipe's epochs, so that finetune_epochs remain

    def __post_init__(self) -> None:
        check_share("ratio", self.ratio)
        check_share("epsilon", self.epsilon)
        check_kinds(self.units)
        if self.fifo < 2:
            raise ValueError(f"fifo must be at least 2 masks, because masks are compared; got {self.fifo}")
        if self.l1 < 0:
            raise ValueError(f"l1 must be at least 0, got {self.l1:g}")
        if self.search_epochs is not None:
            check_count("search_epochs", self.search_epochs, "epoch")

    def stages(self, budget: Budget) -> tuple[Stage, ...]:
        """One stage as long as the control's two. ValueError without an epoch."""
        total = budget.epochs + budget.finetune_epochs
        return from_scratch(budget, replace(self, search_epochs=min(self.search_epochs or budget.epochs or total, total) or None))

    def check(self, network: Module) -> None:
        """Raises ValueError if a group of units would be left empty, or can have no gate."""
        from models.pruning.gates import check_gates
        from models.pruning.selection import check_ratio

        groups = units_of(network, self.units)
        check_ratio(groups, self.ratio, self.scope, self.units, reasons_of(network))
        check_gates(groups)

    def gate(self, network: Module, groups: tuple[Group, ...]) -> Mapping[str, str]:
        """Gates for the kinds of units that this method removes."""
        from models.pruning.gates import insert_gates

        return insert_gates(network, [group for group in groups if group.kind in self.units])

    def after_backward(self, network: NetworkView, progress: Progress) -> None:
        """Pushes every gate towards zero."""
        for gate in network.gates.values():
            network.add_l1(gate, self.l1)

    def after_step(self, network: NetworkView, progress: Progress) -> None:
        """At the end of an epoch of the search: draws a mask, and removes units if it is the ticket."""
        if not network.gates or progress.step % progress.steps_per_epoch:
            return
        import torch

        from models.pruning.selection import keep_best

        masks = keep_best({name: network.read_weight(gate).abs() for name, gate in network.gates.items()}, self.ratio, self.scope)
        drawn = torch.cat(list(masks.values()))[None]
        history = torch.cat((network.state["masks"], drawn))[-self.fifo :] if "masks" in network.state else drawn
        network.state["masks"] = history
        epoch = progress.step // progress.steps_per_epoch
        if self.is_ticket(history):
            apart = f"the last {self.fifo} masks are at most {max(distances(history)):.3f} apart"
            self.remove(network, masks, f"ticket found after epoch {epoch}: {apart}")
        elif epoch == self.search_epochs:
            apart = f"the last {len(history)} masks are up to {max(distances(history), default=0.0):.3f} apart"
            self.remove(network, masks, f"no ticket in {epoch} epochs ({apart}, and epsilon is {self.epsilon:g}): the last mask was taken")

    def is_ticket(self, history: Tensor) -> bool:
        """True if the FIFO is full and its masks agree."""
        return len(history) == self.fifo and max(distances(history)) <= self.epsilon

    def remove(self, network: NetworkView, masks: Mapping[str, Tensor], note: str) -> None:
        """Removes the units that the masks drop."""
        from models.pruning.selection import indices_kept
        from models.pruning.structure import Structure

        learned = sum(gate.endswith(".scale") for gate in network.gates.values())
        gates = f"{learned} groups by learned factors, {len(network.gates) - learned} by the scales of norms"
        criterion = f"criterion: |gate| under L1 {self.l1:g}, {gates}"
        network.state.clear()
        counts = {name: len(mask) for name, mask in masks.items()}
        network.remove(Structure(kept=indices_kept(masks), counts=counts, notes=(note, criterion)))


def distances(history: Tensor) -> list[float]:
    """Normalised Hamming distances of the newest mask to each of the others, oldest first. history: (masks, units) bool, oldest first."""
    shares: list[float] = (history[:-1] != history[-1]).double().mean(1).tolist()
    return shares
