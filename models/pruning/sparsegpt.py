"""Pruning by the second-order change of each layer's outputs, with an update of the weights that stay."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from models.pruning.allocation import erk
from models.pruning.base import Budget, NetworkView, Stage
from models.pruning.knobs import Scoped, check_count, check_living, check_share, finetune, trunk
from models.pruning.scope import DENSE_BY_DEFAULT, prunable_names
from models.pruning.semi_structured import BLOCK, check_pattern, takes_pattern

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


@dataclass(frozen=True, kw_only=True)
class SparseGPT(Scoped):
    """Train; layer by layer drop the weights without which the layer's outputs change least, and move the others to make up for them; fine-tune.

    Frantar and Alistarh, arXiv 2301.00774, algorithm 1. The outputs are those on the first `batches` global batches of training images, by the
    trained network in evaluation mode. A layer's inputs come from the layers before it as they are already pruned. Convolutions are layers too: an
    input is a channel at a kernel position. `ratios: uniform`: every layer loses round(sparsity * n) of its n weights; `magnitude`: as many as under
    one magnitude threshold for all weights; `erk`: those of Erdos-Renyi-Kernel. Within a layer, each `block` of columns loses its share.

    `pattern: 2:4` keeps two of every four neighbours along a matrix's inputs; as with semi_structured, other weights stay dense. `damping`, a share
    of the mean squared input, is added to every squared input. Weights that a mask dropped before stay zero, and count.
    """

    name: ClassVar[str] = "sparsegpt"
    sparsity: float | None = None  # 2:4 has its own
    pattern: Literal["unstructured", "2:4"] = "unstructured"
    ratios: Literal["uniform", "magnitude", "erk"] = "uniform"  # of the layers
    batches: int = 4
    damping: float = 0.01
    block: int = 128  # columns

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pattern == "2:4" and self.sparsity is not None:
            raise ValueError(f"pattern 2:4 drops two of every four weights: leave sparsity out, got {self.sparsity:g}")
        if self.pattern == "2:4" and self.ratios != "uniform":
            raise ValueError(f"pattern 2:4 drops half of every matrix: leave ratios out, got {self.ratios}")
        if self.pattern != "2:4" and self.sparsity is None:
            raise ValueError("sparsegpt needs sparsity, or pattern: 2:4")
        check_share("sparsity", self.sparsity or 0.0)
        check_count("batches", self.batches, "batch")
        check_count("block", self.block, "column")
        if self.pattern == "2:4" and self.block % BLOCK:
            raise ValueError(f"block must be a multiple of {BLOCK} with pattern 2:4, got {self.block}")
        if not 0.0 < self.damping < math.inf:
            raise ValueError(f"damping must be above 0, got {self.damping:g}")
        if without := [group for group in self.groups if group in DENSE_BY_DEFAULT]:
            raise ValueError(f"groups must be weights of layers, which have inputs; leave out {', '.join(without)}")

    @property
    def keeps_pattern(self) -> bool:
        """True with a pattern."""
        return self.pattern != "unstructured"

    def stages(self, budget: Budget) -> tuple[Stage, ...]:
        """The dense training, then fine-tuning under the mask."""
        return trunk(budget), finetune(budget, self)

    def check(self, network: Module) -> None:
        """Raises ValueError, as others do, and for layers whose inputs cannot be seen."""
        from models.pruning.inputs import check_inputs

        super().check(network)
        names = prunable_names(network, self.groups)
        check_inputs(network, [name for name in names if self.sparsity is not None or takes_pattern(tuple(network.get_parameter(name).shape))])

    def check_reach(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """ValueError if a layer is left without a weight, or if none takes the pattern."""
        if self.sparsity is None:
            check_pattern(shapes)
        elif self.ratios == "erk":
            check_living(erk(shapes, self.sparsity), shapes, f"sparsity {self.sparsity:g} with ratios: erk")
        elif self.ratios == "uniform":
            zeros = {name: round(self.sparsity * math.prod(shape)) for name, shape in shapes.items()}
            check_living(zeros, shapes, f"sparsity {self.sparsity:g} of every layer")

    def begin(self, network: NetworkView) -> None:
        """Prunes and updates the trained weights, from the first layer to the last."""
        import torch

        before = {name: network.masks[name] if name in network.masks else torch.ones_like(network.read_weight(name)).bool() for name in network.names}
        names = [name for name, mask in before.items() if self.sparsity is not None or takes_pattern(mask.shape)]
        zeros = self.zeros(network, before)
        masks = network.rewrite(self.batches, names, lambda name, weight, products: self.pruned(name, weight, products, before[name], zeros[name]))
        network.set_masks({**network.masks, **before, **masks})

    def zeros(self, network: NetworkView, before: Mapping[str, Tensor]) -> dict[str, int]:
        """Zeros of each layer; with a pattern, none but its own."""
        from models.pruning.masks import choose, living

        if self.ratios == "magnitude":
            sizes = {name: weight.abs() for name, weight in network.weights().items()}
            return {name: living(~mask) for name, mask in choose(sizes, self.sparsity or 0.0, "global", before).items()}
        if self.ratios == "erk":
            return erk({name: mask.shape for name, mask in before.items()}, self.sparsity or 0.0)
        return {name: round((self.sparsity or 0.0) * mask.numel()) for name, mask in before.items()}

    def pruned(self, name: str, weight: Tensor, products: Tensor, before: Tensor, zeros: int) -> tuple[Tensor, Tensor]:
        """(weight, mask) of a layer. products: (groups, inputs, inputs). before: False for weights that are zero already. zeros: in all.

        Raises ValueError, with the name, where the products are not finite or too close to singular.
        """
        from models.pruning.masks import living
        from models.pruning.second_order import LowestShare, highest_two, inverse_root, prune_columns

        try:
            root = inverse_root(products, self.damping)
        except ValueError as error:
            raise ValueError(f"'{name}': {error}") from None
        rows, mask = (tensor.reshape(len(products), -1, products.shape[-1]) for tensor in (weight, before))
        alive = living(before)
        if self.sparsity is None:
            updated, mask = prune_columns(rows, root, mask, highest_two, block=self.block, every=BLOCK)
        else:
            share = LowestShare(name=name, drops=max(0, zeros - (before.numel() - alive)), alive=alive)
            updated, mask = prune_columns(rows, root, mask, share, block=self.block, every=self.block)
        return updated.view(weight.shape).to(weight.dtype), mask.view(weight.shape)
