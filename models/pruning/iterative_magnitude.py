"""Iterative magnitude pruning with rewinding: lottery tickets."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from models.pruning.base import Budget, NetworkView, Stage
from models.pruning.knobs import Scoped, trunk


@dataclass(frozen=True, kw_only=True)
class IterativeMagnitude(Scoped):
    """Train; then, `rounds` times: drop the smallest of the remaining weights over the whole network, rewind, train again.

    `rewind: weights` goes back to the weights, the learning rate and the data order of step `rewind_step` (0: the initialisation; Frankle and Carbin,
    arXiv 1803.03635; later: Frankle et al., arXiv 1912.05671). `learning_rate` keeps the weights and runs the training schedule again (Renda et al.,
    arXiv 2003.02389). `none` keeps the weights and fine-tunes for `finetune_epochs`. After r rounds a fraction of (1 - rate)^r remains.
    """

    name: ClassVar[str] = "iterative_magnitude"
    rate: float = 0.2  # of the remaining weights, each round
    rounds: int
    rewind: Literal["weights", "learning_rate", "none"] = "weights"
    rewind_step: int = 0  # optimizer steps of the first training

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.rate < 1.0:
            raise ValueError(f"rate must be in (0, 1), got {self.rate:g}")
        if self.rounds < 1:
            raise ValueError(f"rounds must be at least 1, got {self.rounds}")
        if self.rewind_step < 0 or (self.rewind_step and self.rewind != "weights"):
            raise ValueError(f"rewind_step must be at least 0, and 0 unless rewind is weights, got {self.rewind_step} with rewind: {self.rewind}")

    @property
    def sparsity(self) -> float:
        """Fraction of zeros after all rounds, up to rounding."""
        return 1.0 - (1.0 - self.rate) ** self.rounds

    def check_reach(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """ValueError if a round has too few weights left to drop a weight, or drops the last."""
        left = total = sum(map(math.prod, shapes.values()))
        for number in range(1, self.rounds + 1):
            gone = round(self.rate * left)
            if gone in (0, left):
                counts = f"{gone} of the {left} weights that are left of {total}"
                raise ValueError(f"round {number} of {self.rounds} would drop {counts}; ask for fewer rounds")
            left -= gone

    def stages(self, budget: Budget) -> tuple[Stage, ...]:
        """The dense training, which keeps the weights to rewind to; then for each round a stage that draws the mask and a stage that trains under it.

        No stage says how many rounds follow, so a cell of k + 1 rounds shares k rounds with a cell of k rounds. ValueError if rounds have no epoch.
        """
        if not self.retraining(1, budget).epochs:
            spent = "finetune_epochs" if self.rewind == "none" else "epochs"
            name = f"iterative_magnitude with rewind: {self.rewind}"
            raise ValueError(f"{name} trains for `{spent}` after every mask: it must be at least 1, got 0; magnitude prunes once, without training")
        one_round = replace(self, rounds=1, rewind="weights", rewind_step=0)  # the mask depends only on the rate and the parent
        first = replace(trunk(budget), keep_steps=(self.rewind_step,) if self.rewind == "weights" else ())
        rounds: list[Stage] = []
        for number in range(1, self.rounds + 1):
            rounds.append(Stage(name=f"prune_{number}", epochs=0, schedule="finetune", method=one_round, start="parent"))
            rounds.append(self.retraining(number, budget))
        return (first, *rounds)

    def retraining(self, number: int, budget: Budget) -> Stage:
        """The training of one round under the mask of the stage before it."""
        if self.rewind == "none":
            return Stage(name=f"round_{number}", epochs=budget.finetune_epochs, schedule="finetune", start="parent")
        if self.rewind == "learning_rate":
            return Stage(name=f"round_{number}", epochs=budget.epochs, start="parent")
        return Stage(name=f"round_{number}", epochs=budget.epochs, start="rewind", rewind_step=self.rewind_step)

    def begin(self, network: NetworkView) -> None:
        """Draws one round's mask, within the mask of the round before."""
        from models.pruning.masks import drop, living

        scores = {name: network.read_weight(name).abs() for name in network.names}
        total = sum(score.numel() for score in scores.values())
        kept = network.kept()
        left = sum(living(mask) for mask in kept.values()) if kept else total
        network.set_masks(drop(scores, total - left + round(self.rate * left), within=kept))
