"""Knobs that several methods share, with their checks. No torch at import."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from models.pruning.base import Budget, Progress, PruningMethod, Stage
from models.pruning.scope import DEFAULT_GROUPS, check_groups, check_zeros, prunable_names
from models.pruning.sparsity_schedule import Schedule, sparsity_at

if TYPE_CHECKING:
    from torch.nn import Module

Scope = Literal["global", "layer"]


def check_share(name: str, value: float) -> None:
    """Raises ValueError unless 0 <= value < 1."""
    if not 0.0 <= value < 1.0:
        raise ValueError(f"{name} must be in [0, 1), got {value:g}")


def check_living(zeros: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]], rule: str) -> None:
    """Raises ValueError if `zeros` leave a parameter without a weight: no signal passes such a layer, so the target cannot be intended."""
    dead = [name for name, shape in shapes.items() if zeros[name] >= math.prod(shape)]
    if dead:
        largest = max(dead, key=lambda name: math.prod(shapes[name]))
        others = f" and {len(dead) - 1} more" if len(dead) > 1 else ""
        remedy = "lower the sparsity, or leave its group out"
        raise ValueError(f"{rule} drops all {math.prod(shapes[largest])} weights of '{largest}'{others}: {remedy}")


def check_count(name: str, value: int, unit: str) -> None:
    """Raises ValueError unless value >= 1."""
    if value < 1:
        raise ValueError(f"{name} must be at least 1 {unit}, got {value}")


@dataclass(frozen=True, kw_only=True)
class Scoped(PruningMethod):
    """A method that prunes the parameters of some groups (see `models.pruning.scope`)."""

    groups: tuple[str, ...] = DEFAULT_GROUPS

    def __post_init__(self) -> None:
        check_groups(self.groups)

    def check(self, network: Module) -> None:
        """Raises ValueError, with numbers, if the network has no parameter in the groups, or if the method cannot reach its target on it."""
        names = frozenset(prunable_names(network, self.groups))
        check_zeros(network, names)
        self.check_reach({name: tuple(parameter.shape) for name, parameter in network.named_parameters() if name in names})

    def check_reach(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raises ValueError, with numbers, if the target is out of reach with prunable parameters of these shapes."""


@dataclass(frozen=True, kw_only=True)
class Targeted(Scoped):
    """A method with a final sparsity over the prunable weights, reached by one threshold for all of them or by one for each parameter."""

    sparsity: float
    scope: Scope = "global"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("sparsity", self.sparsity)

    def check_reach(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """ValueError if a parameter, or with scope global the whole network, is left without a weight."""
        sizes = {name: math.prod(shape) for name, shape in shapes.items()}
        if self.scope == "layer":
            check_living({name: round(self.sparsity * size) for name, size in sizes.items()}, shapes, f"sparsity {self.sparsity:g} of every layer")
        elif round(self.sparsity * sum(sizes.values())) == sum(sizes.values()):
            raise ValueError(f"sparsity {self.sparsity:g} of {sum(sizes.values())} prunable weights leaves none; lower it, or prune more groups")


@dataclass(frozen=True, kw_only=True)
class Gradual(Targeted):
    """A method whose sparsity rises between two points of a stage, with a new mask every `interval` steps."""

    initial_sparsity: float = 0.0
    begin_fraction: float = 0.1  # of the stage's steps: the first mask, at the initial sparsity
    end_fraction: float = 0.75  # the mask at the final sparsity; the remaining steps train under it
    interval: int = 16  # optimizer steps between masks

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("initial_sparsity", self.initial_sparsity)
        if self.initial_sparsity > self.sparsity:
            raise ValueError(f"initial_sparsity must be at most sparsity, {self.sparsity:g}, got {self.initial_sparsity:g}")
        if not 0.0 <= self.begin_fraction < self.end_fraction <= 1.0:
            raise ValueError(f"0 <= begin_fraction < end_fraction <= 1 must hold, got {self.begin_fraction:g} and {self.end_fraction:g}")
        check_count("interval", self.interval, "step")

    def target(self, schedule: Schedule, progress: Progress) -> float | None:
        """The sparsity of the mask that is due at this step, or None. The last mask is due at `last_step`, whatever the interval."""
        end = self.last_step(progress.steps)
        begin = min(max(1, round(self.begin_fraction * progress.steps)), end)
        if progress.step == end:
            return self.sparsity
        if not begin <= progress.step < end or (progress.step - begin) % self.interval:
            return None
        return sparsity_at(schedule, (progress.step - begin) / (end - begin), self.initial_sparsity, self.sparsity)

    def last_step(self, steps: int) -> int:
        """The step, counted from 1, of the last mask in a stage of `steps` steps."""
        return max(1, round(self.end_fraction * steps))


def groups_of(method: PruningMethod | None) -> tuple[str, ...]:
    """The groups that a method prunes; for the dense control the default groups, so that its table counts the same parameters."""
    return method.groups if isinstance(method, Scoped) else DEFAULT_GROUPS


def trunk(budget: Budget) -> Stage:
    """The dense training, shared by every method that starts from the trained network."""
    return Stage(name="train", epochs=budget.epochs)


def is_trunk(stage: Stage) -> bool:
    """True for the dense training, from which most methods start, and which is the dense teacher."""
    return stage.schedule == "train" and stage.start == "scratch" and stage.method is None


def finetune(budget: Budget, method: PruningMethod | None) -> Stage:
    """The stage after the trunk, in which `method` acts. None: the dense control, which goes on without a mask."""
    return Stage(name="finetune", epochs=budget.finetune_epochs, schedule="finetune", method=method, start="parent")


def from_scratch(budget: Budget, method: PruningMethod) -> tuple[Stage, ...]:
    """One stage as long as the control's two, in which `method` acts from the first step. ValueError without an epoch."""
    epochs = budget.epochs + budget.finetune_epochs
    if epochs < 1:
        raise ValueError(f"{method.name} prunes while it trains: epochs + finetune_epochs must be at least 1, got 0; magnitude needs no training")
    return (Stage(name="train", epochs=epochs, method=method),)
