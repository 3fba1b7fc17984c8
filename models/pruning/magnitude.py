"""One-shot magnitude pruning."""

from dataclasses import dataclass
from typing import ClassVar

from models.pruning.base import Budget, NetworkView, Stage
from models.pruning.knobs import Targeted, finetune, trunk


@dataclass(frozen=True, kw_only=True)
class Magnitude(Targeted):
    """Train, drop the weights of least absolute value at once, fine-tune the others. Han et al., arXiv 1506.02626, section 3, in one round."""

    name: ClassVar[str] = "magnitude"

    def stages(self, budget: Budget) -> tuple[Stage, ...]:
        """The dense training, then fine-tuning under the mask. The mask is drawn even without epochs to fine-tune."""
        return trunk(budget), finetune(budget, self)

    def begin(self, network: NetworkView) -> None:
        """Draws the mask from the trained weights."""
        from models.pruning.masks import choose

        magnitudes = {name: network.read_weight(name).abs() for name in network.names}
        network.set_masks(choose(magnitudes, self.sparsity, self.scope, within=network.kept()))
