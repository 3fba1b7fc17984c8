"""The learning rate of every optimizer step, in closed form."""

import math
from dataclasses import dataclass
from typing import Literal

from jobs.experiment.specs import RecipeSpec


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Linear warm-up to `peak`, half a cosine down to `floor`, and a cool-down at `floor`. All but `every` is counted in changes of the rate.

    With a `start`, these are the rates of timm.scheduler.CosineLRScheduler of one cycle, where step k has the rate of update k.
    """

    peak: float
    floor: float
    warmup: float
    steps: int  # of the whole stage
    start: float | None = None  # the first rate of the warm-up; None: the first is peak / warmup, and the last is the peak
    prefix: bool = True  # True: the cosine begins at the end of the warm-up; False: it begins with the first step
    cooldown: int = 0  # at the end of the stage
    every: int = 1  # optimizer steps between two changes of the rate

    def lr(self, step: int) -> float:
        """The rate of optimizer step `step`, counted from 0. The cosine would reach the floor with the first step after its end."""
        change = step // self.every
        if change < self.warmup:
            return self.rising(change)
        passed, length = (change - self.warmup if self.prefix else change), self.cosine
        if passed >= length:
            return self.floor
        return self.floor + (self.peak - self.floor) * (1 + math.cos(math.pi * (passed / length))) / 2

    def rising(self, change: int) -> float:
        """A rate of the warm-up."""
        if self.start is None:
            return min(self.peak, self.peak * (change + 1) / self.warmup)
        return self.start + change * (self.peak - self.start) / self.warmup

    @property
    def cosine(self) -> float:
        """The length of the cosine."""
        return max(1, self.steps - self.cooldown - (self.warmup if self.prefix else 0))


def schedule(recipe: RecipeSpec, kind: Literal["train", "finetune"], *, steps: int, steps_per_epoch: int) -> Schedule:
    """A stage's schedule. Fine-tuning starts at `finetune_lr` (a tenth of `lr` unless given). It has neither warm-up, because its weights are trained
    already, nor cool-down. A stage that is too short for warm-up and cool-down has no cool-down.
    """
    every = steps_per_epoch if recipe.lr_every == "epoch" else 1
    changes, per_epoch = -(-steps // every), steps_per_epoch // every
    if kind == "finetune":
        peak = recipe.lr / 10 if recipe.finetune_lr is None else recipe.finetune_lr
        return Schedule(peak=peak, floor=min(recipe.min_lr, peak), warmup=0, steps=changes, every=every)
    warmup = min(changes, recipe.warmup_epochs if every > 1 else round(recipe.warmup_epochs * steps_per_epoch))
    cooldown = recipe.cooldown_epochs * per_epoch
    return Schedule(
        peak=recipe.lr,
        floor=min(recipe.min_lr, recipe.lr),
        warmup=warmup,
        steps=changes,
        start=recipe.warmup_lr,
        prefix=recipe.warmup_prefix,
        cooldown=cooldown if warmup + cooldown < changes else 0,
        every=every,
    )
