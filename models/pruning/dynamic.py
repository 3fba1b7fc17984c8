"""Gradual pruning while training."""

from dataclasses import dataclass
from typing import ClassVar

from models.pruning.base import Budget, NetworkView, Progress, Stage
from models.pruning.knobs import Gradual, from_scratch
from models.pruning.sparsity_schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class Dynamic(Gradual):
    """Train from scratch while the sparsity rises on a schedule. Each mask drops the weights of least absolute value.

    Without `regrow` no weight comes back: Zhu and Gupta, arXiv 1710.01878, with their cubic schedule, and a new mask every `interval` steps between
    two points of the training. With `regrow` (dynamic pruning with feedback, Lin et al., arXiv 2006.07253, algorithm 1) dense weights w live on
    under the mask m: the gradient at m w updates w, and every `interval` steps, to the end of the training, a new m is chosen from w.
    """

    name: ClassVar[str] = "dynamic"
    schedule: Schedule = "cosine"
    regrow: bool = False

    @property
    def keeps_dense(self) -> bool:
        """True with regrow."""
        return self.regrow

    def stages(self, budget: Budget) -> tuple[Stage, ...]:
        """One stage as long as the control's two. ValueError without an epoch: masks are drawn between steps."""
        return from_scratch(budget, self)

    def after_step(self, network: NetworkView, progress: Progress) -> None:
        """Draws a new mask if one is due; without regrow within the current mask."""
        sparsity = self.due(progress)
        if sparsity is None:
            return
        from models.pruning.masks import choose

        magnitudes = {name: network.read_weight(name).abs() for name in network.names}
        network.set_masks(choose(magnitudes, sparsity, self.scope, within=None if self.regrow else network.masks))

    def due(self, progress: Progress) -> float | None:
        """The sparsity of the mask that is due at this step, or None. Without regrow, the last mask is due at the end of the schedule."""
        last = self.last_step(progress.steps)
        if self.regrow and progress.step > last:
            return None if (progress.step - last) % self.interval else self.sparsity
        return self.target(self.schedule, progress)
