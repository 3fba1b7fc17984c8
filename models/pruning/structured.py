"""Structured pruning: whole channels, heads and hidden units are removed, so the network becomes smaller."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from hashlib import sha256
from operator import add
from typing import TYPE_CHECKING, ClassVar, Literal

from models.pruning.base import Budget, NetworkView, Progress, PruningMethod, Stage
from models.pruning.knobs import Scope, check_count, check_share, finetune, trunk
from models.pruning.units import DEFAULT_KINDS, check_kinds, reasons_of, units_of

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from models.pruning.structure import Group, Owned


@dataclass(frozen=True, kw_only=True)
class Structured(PruningMethod):
    """Train, remove the units of the lowest scores together with all that depends on them, fine-tune the smaller network.

    Dependencies: Fang et al., arXiv 2301.12900 (torch-pruning). A unit's score, over all weights of layers that it owns:

    | criterion | score |
    |---|---|
    | norm | L2 norm (Fang et al., section 3.3, without its regularization) |
    | magnitude | sum of absolute values (Li et al., arXiv 1608.08710, section 3.1, over the whole group) |
    | taylor | sum over batches of (sum of g w)^2 (Molchanov et al., arXiv 1906.10771, eq. 8, with a unit's weights as one) |
    | random | a random number: the baseline |
    | sparsessm | of a state: steps of its scan that vote for others (Tuo and Wang, arXiv 2506.09613; see `models.pruning.state_votes`) |

    taylor reads the first `batches` batches of the fine-tuning, then removes units; biases and bare parameters count too. Without epochs to fine-tune
    it scores the weights as they are, in evaluation mode, on those batches. sparsessm reads `batches` batches of training images through the trained
    network in evaluation mode, before any unit is removed; it goes with units: [state] alone. With scope: global, norm and magnitude are divided by
    their mean over the group, because groups own different numbers of weights.
    """

    name: ClassVar[str] = "structured"
    needs_gradients: ClassVar[bool] = True
    removes_units: ClassVar[bool] = True
    ratio: float  # of units, not of weights
    criterion: Literal["norm", "magnitude", "taylor", "random", "sparsessm"] = "norm"
    scope: Scope = "layer"
    units: tuple[str, ...] = DEFAULT_KINDS
    batches: int = 8  # only for taylor and sparsessm: global batches

    def __post_init__(self) -> None:
        check_share("ratio", self.ratio)
        check_kinds(self.units)
        check_count("batches", self.batches, "batch")
        if self.criterion == "sparsessm" and self.units != ("state",):
            raise ValueError(f"criterion sparsessm scores states alone: set units: [state], got {', '.join(self.units)}")

    @property
    def calibration_batches(self) -> int:
        """The batches of taylor."""
        return self.batches if self.criterion == "taylor" else 0

    def stages(self, budget: Budget) -> tuple[Stage, ...]:
        """The dense training, then fine-tuning of the smaller network. Units are removed even without epochs to fine-tune."""
        return trunk(budget), finetune(budget, self)

    def check(self, network: Module) -> None:
        """Raises ValueError if a group of units would be left empty, or cannot be scored by the criterion."""
        from models.pruning.selection import check_ratio
        from models.pruning.state_votes import check_states

        groups = units_of(network, self.units)
        check_ratio(groups, self.ratio, self.scope, self.units, reasons_of(network))
        if self.criterion == "sparsessm":
            check_states(network, groups)

    def begin(self, network: NetworkView) -> None:
        """Removes units of the trained network, unless gradients are needed first."""
        if self.criterion == "random":
            self.remove(network, {group.name: random_scores(network.seed, group) for group in self.groups(network)})
        elif self.criterion == "sparsessm":
            from models.pruning.state_votes import vote

            sums = network.state_importance(self.batches)
            self.remove(network, {group.name: vote(sums[group.name], self.ratio) for group in self.groups(network)})
        elif self.criterion != "taylor":
            self.remove(network, {group.name: self.size(network, group) for group in self.groups(network)})

    def after_backward(self, network: NetworkView, progress: Progress) -> None:
        """Adds a batch to Taylor's sums, which are kept in `network.state`."""
        if self.criterion != "taylor":
            return
        for group in self.groups(network):
            products = ((owned, network.read_gradient(owned.parameter) * network.read_weight(owned.parameter)) for owned in group.owned)
            square = total(per_unit(product, owned) for owned, product in products).square()
            network.state[group.name] = network.state[group.name] + square if group.name in network.state else square

    def after_step(self, network: NetworkView, progress: Progress) -> None:
        """Removes units once Taylor's batches are read."""
        if network.state and progress.step == min(self.batches, progress.steps):
            scores = {group.name: network.state[group.name] for group in self.groups(network)}
            network.state.clear()
            self.remove(network, scores)

    def groups(self, network: NetworkView) -> tuple[Group, ...]:
        """The groups of the kinds that this method removes; none after the removal."""
        return tuple(group for group in network.groups if group.kind in self.units)

    def size(self, network: NetworkView, group: Group) -> Tensor:
        """Norm or magnitude of each unit."""
        power = 2 if self.criterion == "norm" else 1
        layers = [owned for owned in group.owned if owned.parameter.split(".")[-1] in ("weight", "B", "C")]  # B and C are S4's and S5's
        sizes = total(per_unit(network.read_weight(owned.parameter).abs() ** power, owned) for owned in layers) ** (1 / power)
        return sizes / sizes.mean() if self.scope == "global" else sizes

    def remove(self, network: NetworkView, scores: dict[str, Tensor]) -> None:
        """Removes all but the best units."""
        from models.pruning.selection import indices_kept, keep_best
        from models.pruning.structure import Structure

        counts = {name: len(score) for name, score in scores.items()}
        network.remove(Structure(kept=indices_kept(keep_best(scores, self.ratio, self.scope)), counts=counts))


def per_unit(values: Tensor, owned: Owned) -> Tensor:
    """Sums, (units,), of a parameter-shaped tensor over what each unit owns of it."""
    along = values.transpose(0, owned.dimension).flatten(1).sum(1) if values.dim() > 1 else values
    return along[owned.indices.to(values.device)].sum(1)


def total(tensors: Iterable[Tensor]) -> Tensor:
    """The sum of tensors of one shape, from the first to the last."""
    return reduce(add, tensors)


def random_scores(seed: int, group: Group) -> Tensor:
    """A random number in [0, 1) for every unit: a function of the seed and the group's name, on any machine and rank."""
    import torch

    digest = sha256(f"{seed} {group.name}".encode()).digest()
    return torch.rand(group.count, generator=torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1))
