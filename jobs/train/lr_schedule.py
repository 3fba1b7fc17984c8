"""The learning rate of every optimizer step, in closed form."""

import math
from dataclasses import dataclass
from typing import Literal

from jobs.experiment.specs import RecipeSpec


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Linear warm-up to `peak`, then half a cosine down to `floor`."""

    peak: float
    floor: float
    warmup: int  # optimizer steps
    steps: int  # of the whole stage

    def lr(self, step: int) -> float:
        """The rate of optimizer step `step`, counted from 0. The last warm-up step has the peak; the cosine would reach the floor at step `steps`."""
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.floor + (self.peak - self.floor) * (1 + math.cos(math.pi * progress)) / 2


def schedule(recipe: RecipeSpec, kind: Literal["train", "finetune"], *, steps: int, steps_per_epoch: int) -> Schedule:
    """A stage's schedule. Fine-tuning starts at `finetune_lr` (a tenth of `lr` unless given) and has no warm-up: its weights are trained already."""
    if kind == "finetune":
        peak = recipe.lr / 10 if recipe.finetune_lr is None else recipe.finetune_lr
        return Schedule(peak=peak, floor=min(recipe.min_lr, peak), warmup=0, steps=steps)
    warmup = min(steps, round(recipe.warmup_epochs * steps_per_epoch))
    return Schedule(peak=recipe.lr, floor=min(recipe.min_lr, recipe.lr), warmup=warmup, steps=steps)
