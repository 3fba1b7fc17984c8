"""The control that every pruned cell is compared with."""

from dataclasses import dataclass
from typing import ClassVar

from models.pruning.base import Budget, PruningMethod, Stage
from models.pruning.knobs import finetune, trunk


@dataclass(frozen=True, kw_only=True)
class Dense(PruningMethod):
    """No pruning: the same recipe and the same total epochs as the pruned cells, fine-tuning schedule included."""

    name: ClassVar[str] = "dense"

    def stages(self, budget: Budget) -> tuple[Stage, ...]:
        """Training and fine-tuning; no method acts in either, so the training is shared with every method that starts from it."""
        return trunk(budget), finetune(budget, None)
