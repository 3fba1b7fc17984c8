"""What a pruning method is: stages to run, and what it does at three moments of the stages in which it acts.

No torch at import: a method's knobs and stages are needed on the login node; its hooks only call methods of the tensors that they are given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from models.pruning.structure import Group, Structure


def _no_engine(*_: object) -> None:
    raise RuntimeError("this pruner has no engine behind it that could do so")


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Training epochs that every cell of a grid is granted."""

    epochs: int
    finetune_epochs: int


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of a cell's life that ends in exported weights.

    `method` acts in this stage, configured so that it holds only what decides this stage (round k of an iterative method says k, not how many rounds
    follow); None: nothing prunes here, and any cell whose path begins with the same stage shares it.
    """

    name: str  # train, finetune, search, round_1 ...
    epochs: int
    schedule: Literal["train", "finetune"] = "train"  # which learning rate and warm-up of the recipe
    method: PruningMethod | None = None
    start: Literal["scratch", "parent", "rewind"] = "scratch"  # rewind: weights that an earlier stage kept, masks of the parent
    rewind_step: int | None = None  # of that earlier stage: the first on the path whose keep_steps have it
    keep_steps: tuple[int, ...] = ()  # also export the weights after so many optimizer steps; no part of the stage's identity


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a stage stands. Steps are optimizer steps, counted from 1 when `after_step` sees them."""

    step: int
    steps: int  # of the whole stage
    steps_per_epoch: int


@dataclass(kw_only=True)
class NetworkView:
    """A method's view of the network in training. Tensors are whole (gathered over ranks), in fp32, and the same on every rank.

    The engine makes it and gives the callables; `masks` is True where a weight lives, and holds prunable parameters alone.
    """

    names: tuple[str, ...]  # prunable parameters, in the model's order
    masks: Mapping[str, Tensor] = field(default_factory=dict)  # empty: dense
    state: dict[str, Tensor] = field(default_factory=dict)  # what the method keeps between hooks; checkpoints hold it, the next stage starts empty
    seed: int = 0  # the cell's
    read_weight: Callable[[str], Tensor]  # of a method that keeps_dense: what the mask hides too
    read_gradient: Callable[[str], Tensor]  # within after_backward alone; mean over the global batch
    input_norms: Callable[[int], Mapping[str, Tensor]]  # within begin alone: of so many global batches; see `models.pruning.inputs.InputNorms`
    apply: Callable[[Mapping[str, Tensor]], None]  # zeroes the weights and keeps them zero from now on
    groups: tuple[Group, ...] = ()  # of a method that removes_units: what can be removed
    gates: Mapping[str, str] = field(default_factory=dict)  # what the method's `gate` returned
    remove: Callable[[Structure], None] = _no_engine  # makes the network smaller, once: the optimizer begins anew, `groups` and `gates` are gone
    add_l1: Callable[[str, float], None] = _no_engine  # within after_backward alone: adds strength * sign(w) to a parameter's gradient

    def weights(self) -> dict[str, Tensor]:
        """The fp32 weights of every prunable parameter."""
        return {name: self.read_weight(name) for name in self.names}

    def gradients(self) -> dict[str, Tensor]:
        """The gradients of every prunable parameter."""
        return {name: self.read_gradient(name) for name in self.names}

    def set_masks(self, masks: Mapping[str, Tensor]) -> None:
        """Replaces the masks; what they drop is zero before the next forward pass."""
        self.masks = dict(masks)
        self.apply(self.masks)


@dataclass(frozen=True, kw_only=True)
class PruningMethod:
    """Knobs (fields), stages, and three hooks that do nothing unless a method says so. A cell's identity holds the fields."""

    name: ClassVar[str]
    needs_gradients: ClassVar[bool] = False  # True: `after_backward` is called, with dense gradients
    removes_units: ClassVar[bool] = False  # True: it makes the network smaller, by `NetworkView.remove`

    @property
    def keeps_dense(self) -> bool:
        """Whether weights go on being trained under the mask, which only the forward and backward pass see, so that they can come back."""
        return False

    def stages(self, budget: Budget) -> tuple[Stage, ...]:
        """The cell's path, first stage first."""
        raise NotImplementedError

    def check(self, network: Module) -> None:
        """Raises ValueError, with numbers, where this network cannot be pruned so. The network has no memory; asked before anything is queued."""

    def gate(self, network: Module, groups: tuple[Group, ...]) -> Mapping[str, str]:
        """Puts gates into the network before the engine takes it over; the name of the parameter that gates each group of units."""
        return {}

    def begin(self, pruner: NetworkView) -> None:
        """Before the first step of a stage in which the method acts; not again when a killed stage goes on."""

    def after_backward(self, pruner: NetworkView, progress: Progress) -> None:
        """After the backward pass of a whole global batch, before the optimizer's step."""

    def after_step(self, pruner: NetworkView, progress: Progress) -> None:
        """After an optimizer step, masks already enforced."""
