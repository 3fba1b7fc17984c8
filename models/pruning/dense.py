"""The dense control, with which every pruned cell is compared."""

from dataclasses import dataclass
from typing import ClassVar

from models.pruning.base import Budget, PruningMethod, Stage
from models.pruning.knobs import finetune, trunk


@dataclass(frozen=True, kw_only=True)
class Dense(PruningMethod):
    """No pruning: the same recipe and the same total epochs as the pruned cells, fine-tuning schedule included.

    `rounds`: that many further trainings on the training schedule instead of fine-tuning, as a control for iterative_magnitude with as many rounds.
    """

    name: ClassVar[str] = "dense"
    rounds: int = 0

    def __post_init__(self) -> None:
        if self.rounds < 0:
            raise ValueError(f"rounds must be at least 0, got {self.rounds}")

    def stages(self, budget: Budget) -> tuple[Stage, ...]:
        """Training, shared with every method that starts from it, then fine-tuning or rounds. Cells share the rounds that they have in common.

        ValueError if rounds have no epoch.
        """
        if not self.rounds:
            return trunk(budget), finetune(budget, None)
        if not budget.epochs:
            raise ValueError("dense with rounds trains for `epochs` in every round: it must be at least 1, got 0; leave rounds out")
        again = (Stage(name=f"round_{number}", epochs=budget.epochs, start="parent") for number in range(1, self.rounds + 1))
        return (trunk(budget), *again)
