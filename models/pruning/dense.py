"""The control that every pruned cell is compared with."""

from dataclasses import dataclass
from typing import ClassVar

from models.pruning.base import Budget, PruningMethod, Stage
from models.pruning.knobs import finetune, trunk


@dataclass(frozen=True, kw_only=True)
class Dense(PruningMethod):
    """No pruning: the same recipe and the same total epochs as the pruned cells, fine-tuning schedule included.

    `rounds`: instead of fine-tuning, so many further trainings on the training schedule: the control of iterative_magnitude with as many rounds.
    """

    name: ClassVar[str] = "dense"
    rounds: int = 0

    def __post_init__(self) -> None:
        if self.rounds < 0:
            raise ValueError(f"rounds must be at least 0, got {self.rounds}")

    def stages(self, budget: Budget) -> tuple[Stage, ...]:
        """Training, shared with every method that starts from it, and what follows; no method acts. More rounds share those of fewer."""
        if not self.rounds:
            return trunk(budget), finetune(budget, None)
        again = (Stage(name=f"round_{number}", epochs=budget.epochs, start="parent") for number in range(1, self.rounds + 1))
        return (trunk(budget), *again)
