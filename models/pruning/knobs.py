"""Knobs that several methods share, with their checks. No torch at import."""

from dataclasses import dataclass
from typing import Literal

from models.pruning.base import Budget, PruningMethod, Stage
from models.pruning.scope import DEFAULT_GROUPS, check_groups

Scope = Literal["global", "layer"]


def check_share(name: str, value: float) -> None:
    """Raises ValueError unless 0 <= value < 1."""
    if not 0.0 <= value < 1.0:
        raise ValueError(f"{name} must be in [0, 1), got {value:g}")


@dataclass(frozen=True, kw_only=True)
class Scoped(PruningMethod):
    """A method that prunes the parameters of some groups (see `models.pruning.scope`)."""

    groups: tuple[str, ...] = DEFAULT_GROUPS

    def __post_init__(self) -> None:
        check_groups(self.groups)


@dataclass(frozen=True, kw_only=True)
class Targeted(Scoped):
    """A method with a final sparsity, over prunable weights, reached by one threshold for all of them or by one for each parameter."""

    sparsity: float
    scope: Scope = "global"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("sparsity", self.sparsity)


def groups_of(method: PruningMethod | None) -> tuple[str, ...]:
    """The groups that a method prunes; the default ones for the dense network, whose table counts the same parameters."""
    return method.groups if isinstance(method, Scoped) else DEFAULT_GROUPS


def trunk(budget: Budget) -> Stage:
    """The dense training that every method which starts from the trained network shares."""
    return Stage(name="train", epochs=budget.epochs)


def finetune(budget: Budget, method: PruningMethod | None) -> Stage:
    """The stage after the trunk in which `method` acts; None: the dense control, which goes on without a mask."""
    return Stage(name="finetune", epochs=budget.finetune_epochs, schedule="finetune", method=method, start="parent")
