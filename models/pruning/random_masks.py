"""Random masks: what a method must beat."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, ClassVar, Literal

from models.pruning.allocation import erk
from models.pruning.base import Budget, NetworkView, Stage
from models.pruning.knobs import Targeted, check_living, finetune, from_scratch, trunk

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Random(Targeted):
    """Drop weights by lot, uniformly or with the per-layer ratios of another rule, then train what is left.

    `ratios: magnitude` keeps the number of weights that one global magnitude threshold leaves in each parameter and shuffles which ones: the
    layer-wise shuffle of Frankle et al., arXiv 2009.08576, section 5, and Su et al., arXiv 2009.11094. `erk`: the ratios of Erdos-Renyi-Kernel.
    """

    name: ClassVar[str] = "random"
    ratios: Literal["uniform", "magnitude", "erk"] = "uniform"
    at: Literal["trained", "init"] = "trained"  # the network that is pruned; init: trained from scratch under the mask, as long as the control
    mask_seed: int | None = None  # None: the cell's seed

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ratios != "uniform" and self.scope != "global":
            raise ValueError(f"scope: {self.scope} sets the ratio of every layer itself; it goes with ratios: uniform alone, got {self.ratios}")

    def stages(self, budget: Budget) -> tuple[Stage, ...]:
        """As one-shot pruning of the trained network, or as training from scratch."""
        return (trunk(budget), finetune(budget, self)) if self.at == "trained" else from_scratch(budget, self)

    def check_reach(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """ValueError where a parameter is left without a weight by ratios that the shapes decide."""
        super().check_reach(shapes)
        if self.ratios == "erk":
            check_living(erk(shapes, self.sparsity), shapes, f"sparsity {self.sparsity:g} with ratios: erk")

    def begin(self, pruner: NetworkView) -> None:
        """Draws the lots."""
        from models.pruning.masks import choose, drop

        lots = draw(pruner, pruner.seed if self.mask_seed is None else self.mask_seed)
        if self.ratios == "uniform":
            pruner.set_masks(choose(lots, self.sparsity, self.scope))
        else:
            zeros = self.zeros(pruner)
            pruner.set_masks({name: drop({name: lot}, zeros[name])[name] for name, lot in lots.items()})

    def zeros(self, pruner: NetworkView) -> dict[str, int]:
        """Zeros of each parameter under the rule whose ratios are borrowed."""
        from models.pruning.masks import choose, living

        weights = pruner.weights()
        if self.ratios == "erk":
            return erk({name: weight.shape for name, weight in weights.items()}, self.sparsity)
        masks = choose({name: weight.abs() for name, weight in weights.items()}, self.sparsity, "global")
        return {name: mask.numel() - living(mask) for name, mask in masks.items()}


def draw(pruner: NetworkView, seed: int) -> "dict[str, Tensor]":
    """A random number in [0, 1) for every prunable weight: a function of the seed and the parameter's name, on any machine and rank."""
    import torch

    lots = {}
    for name in pruner.names:
        weight = pruner.read_weight(name)
        digest = sha256(f"{seed} {name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        lots[name] = torch.rand(weight.shape, generator=generator).to(weight.device)
    return lots
