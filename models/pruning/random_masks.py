"""Random masks: the baseline that every other method must beat."""

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
    """Drop weights at random, uniformly or with the per-layer ratios of another rule, then train the remaining weights.

    `ratios: magnitude` keeps the number of weights that one global magnitude threshold leaves in each parameter and shuffles which ones: the
    layer-wise shuffle of Frankle et al., arXiv 2009.08576, section 5, and Su et al., arXiv 2009.11094. `erk`: the ratios of Erdos-Renyi-Kernel.
    """

    name: ClassVar[str] = "random"
    ratios: Literal["uniform", "magnitude", "erk"] = "uniform"
    at: Literal["trained", "init"] = "trained"  # the network that is pruned; init: it trains from scratch under the mask, as long as the control
    mask_seed: int | None = None  # None: the cell's seed

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ratios != "uniform" and self.scope != "global":
            raise ValueError(f"scope: {self.scope} sets the ratio of every layer itself, so it goes with ratios: uniform only; got {self.ratios}")

    def stages(self, budget: Budget) -> tuple[Stage, ...]:
        """Those of one-shot pruning of the trained network, or of training from scratch."""
        return (trunk(budget), finetune(budget, self)) if self.at == "trained" else from_scratch(budget, self)

    def check_reach(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """ValueError if ratios that follow from the shapes leave a parameter without a weight."""
        super().check_reach(shapes)
        if self.ratios == "erk":
            check_living(erk(shapes, self.sparsity), shapes, f"sparsity {self.sparsity:g} with ratios: erk")

    def begin(self, network: NetworkView) -> None:
        """Draws the mask at random."""
        from models.pruning.masks import choose, drop

        scores = random_scores(network, network.seed if self.mask_seed is None else self.mask_seed)
        if self.ratios == "uniform":
            network.set_masks(choose(scores, self.sparsity, self.scope, within=network.kept()))
        else:
            zeros, kept = self.zeros(network), network.kept()
            network.set_masks({name: drop({name: score}, zeros[name], kept)[name] for name, score in scores.items()})

    def zeros(self, network: NetworkView) -> dict[str, int]:
        """Zeros of each parameter under the rule that sets the ratios."""
        from models.pruning.masks import choose, living

        weights = network.weights()
        if self.ratios == "erk":
            return erk({name: weight.shape for name, weight in weights.items()}, self.sparsity)
        masks = choose({name: weight.abs() for name, weight in weights.items()}, self.sparsity, "global", network.kept())
        return {name: mask.numel() - living(mask) for name, mask in masks.items()}


def random_scores(network: NetworkView, seed: int) -> "dict[str, Tensor]":
    """A random number in [0, 1) for every prunable weight: a function of the seed and the parameter's name, on any machine and rank."""
    import torch

    scores = {}
    for name in network.names:
        weight = network.read_weight(name)
        digest = sha256(f"{seed} {name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        scores[name] = torch.rand(weight.shape, generator=generator).to(weight.device)
    return scores
