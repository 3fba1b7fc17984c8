"""Pruning by gradient criteria."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from models.pruning.base import Budget, NetworkView, Progress, Stage
from models.pruning.knobs import Gradual, check_count, finetune, from_scratch, trunk

if TYPE_CHECKING:
    from torch import Tensor

Criterion = Literal["gradient", "snip", "taylor", "movement"]


@dataclass(frozen=True, kw_only=True)
class Gradient(Gradual):
    """Drop the weights of the lowest score. The score is a sum over global batches of a function of the weight w and its gradient g.

    | criterion | score | network |
    |---|---|---|
    | gradient | sum of \\|g\\| | the trained network |
    | snip | \\|sum of g w\\| | the network at its initialisation, then trained from scratch (Lee et al., arXiv 1810.02340, eq. 6) |
    | taylor | sum of (g w)^2 | the trained network (Molchanov et al., arXiv 1906.10771, eq. 8) |
    | movement | sum of -g w | the network while it is fine-tuned (Sanh et al., arXiv 2005.07683, section 4), without weights that come back |

    `schedule: one_shot` prunes once, after the first `batches` batches; with batches: 1 before any weight has changed. cosine and cubic raise the
    sparsity during the stage: movement sums from the first step, the others from the previous mask. Without epochs to fine-tune, gradient and taylor
    score the weights as they are: the same batches, in evaluation mode, and no step is made.
    """

    name: ClassVar[str] = "gradient"
    needs_gradients: ClassVar[bool] = True
    criterion: Criterion = "taylor"
    schedule: Literal["one_shot", "cosine", "cubic"] = "one_shot"
    batches: int = 1  # one_shot: global batches that the scores sum over

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("batches", self.batches, "batch")
        if self.schedule != "one_shot" and self.batches != 1:
            raise ValueError(
                f"batches goes with schedule: one_shot only, because {self.schedule} uses every batch between two masks; got {self.batches}"
            )

    @property
    def calibration_batches(self) -> int:
        """The batches of a score that needs no step."""
        return self.batches if self.schedule == "one_shot" and self.criterion in ("gradient", "taylor") else 0

    def stages(self, budget: Budget) -> tuple[Stage, ...]:
        """From scratch for snip, else fine-tuning of the trained network. ValueError without an epoch where scores are summed during training."""
        if self.criterion == "snip":
            return from_scratch(budget, self)
        if budget.finetune_epochs < 1 and not self.calibration_batches:
            scores = f"gradient with criterion {self.criterion} and schedule {self.schedule} scores weights while it trains"
            raise ValueError(f"{scores}: finetune_epochs must be at least 1, got 0; taylor and gradient with one_shot need no step")
        return trunk(budget), finetune(budget, self)

    def after_backward(self, network: NetworkView, progress: Progress) -> None:
        """Adds the batch to the scores and, if a mask is due, draws it before the optimizer's step."""
        if progress.step > self.last_step(progress.steps):
            return
        self.accumulate(network)
        sparsity = self.due(progress)
        if sparsity is None:
            return
        from models.pruning.masks import choose

        network.set_masks(choose(self.scores(network), sparsity, self.scope, within=network.kept()))
        if self.criterion != "movement" or progress.step == self.last_step(progress.steps):
            network.state.clear()

    def last_step(self, steps: int) -> int:
        """The step of the last mask."""
        return min(self.batches, steps) if self.schedule == "one_shot" else super().last_step(steps)

    def due(self, progress: Progress) -> float | None:
        """The sparsity of the mask that is due at this step, or None."""
        if self.schedule != "one_shot":
            return self.target(self.schedule, progress)
        return self.sparsity if progress.step == self.last_step(progress.steps) else None

    def accumulate(self, network: NetworkView) -> None:
        """Adds this batch to the sums, which are kept in `network.state`."""
        for name in network.names:
            score = contribution(self.criterion, network.read_weight(name), network.read_gradient(name))
            network.state[name] = network.state[name] + score if name in network.state else score

    def scores(self, network: NetworkView) -> dict[str, Tensor]:
        """The scores of the batches so far."""
        return {name: network.state[name].abs() if self.criterion == "snip" else network.state[name] for name in network.names}


def contribution(criterion: Criterion, weight: Tensor, gradient: Tensor) -> Tensor:
    """The term that one batch adds to the sum of a criterion."""
    if criterion == "gradient":
        return gradient.abs()
    product = gradient * weight
    return {"snip": product, "taylor": product.square(), "movement": -product}[criterion]
