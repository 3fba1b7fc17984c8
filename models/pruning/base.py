"""The interface of a pruning method: the stages that it runs, and three hooks that are called in the stages in which it acts.

No torch at import. The login node needs a method's knobs and stages; the hooks only call methods of the tensors that they are given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, NoReturn

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from models.pruning.structure import Group, Structure


def _no_engine(*_: object) -> NoReturn:
    raise RuntimeError("this NetworkView has no engine, so it cannot remove units, add gradients or run the network")


Solve = Callable[[str, "Tensor", "Tensor"], tuple["Tensor", "Tensor"]]  # a weight's name, the weight, the products of its inputs -> new weight, mask


def _no_losses(*_: object) -> list[float]:
    raise RuntimeError("this NetworkView has no engine, so it cannot compute losses")


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Training epochs that every cell of a grid gets."""

    epochs: int
    finetune_epochs: int


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of a cell's training that ends in exported weights.

    `method` is the method that acts in this stage, with only the knobs that decide this stage: round k of an iterative method does not say how many
    rounds follow. None: no pruning. Cells whose paths begin with equal stages share them.
    """

    name: str  # train, finetune, search, round_1 ...
    epochs: int
    schedule: Literal["train", "finetune"] = "train"  # the learning rate and warm-up of the recipe that it uses
    method: PruningMethod | None = None
    start: Literal["scratch", "parent", "rewind"] = "scratch"  # rewind: weights that a stage before it kept, masks of the parent
    rewind_step: int | None = None  # the first stage on the path with this step in keep_steps kept those weights
    keep_steps: tuple[int, ...] = ()  # also export the weights after these optimizer steps; not part of the stage's identity


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a stage has come. Steps are optimizer steps. At the first call of `after_step`, `step` is 1."""

    step: int
    steps: int  # of the whole stage
    steps_per_epoch: int


@dataclass(kw_only=True)
class NetworkView:
    """A method's view of the network in training. Tensors are whole (gathered over ranks), in fp32, and the same on every rank.

    The engine makes it and provides the callables. A mask is True where a weight lives; only prunable parameters have masks.

    rewrite(batches, names, solve): sends the first global batches through the network once. Where it reaches the layer of a weight, `solve` gets the
    weight and `models.pruning.products.input_products`, and the layer computes with the weight that it returns: later layers see what earlier ones
    have become. Returns the masks of `solve`, by name.
    """

    names: tuple[str, ...]  # prunable parameters, in the model's order
    module: Module | None = None  # the network, for what its layers are; its weights may be old
    masks: Mapping[str, Tensor] = field(default_factory=dict)  # empty: dense
    inherited: Mapping[str, Tensor] = field(default_factory=dict)  # of the methods before this one in a chain; what they have dropped stays dropped
    state: dict[str, Tensor] = field(
        default_factory=dict
    )  # the method keeps it between hooks; it is saved in checkpoints, and empty again in the next stage
    seed: int = 0  # the cell's
    read_weight: Callable[[str], Tensor]  # if the method keeps_dense, with the weights under the mask
    read_gradient: Callable[[str], Tensor]  # only within after_backward; mean over the global batch
    input_norms: Callable[[int], Mapping[str, Tensor]]  # only within begin; over that many global batches; see `models.pruning.inputs.InputNorms`
    rewrite: Callable[[int, Sequence[str], Solve], Mapping[str, Tensor]] = _no_engine  # only within begin; see below
    state_importance: Callable[[int], Mapping[str, Tensor]] = _no_engine  # only within begin; see `models.pruning.state_votes.StateImportance`
    apply: Callable[[Mapping[str, Tensor]], None]  # zeroes the weights that the masks drop, and keeps them zero
    groups: tuple[Group, ...] = ()  # if the method removes_units: the groups that can be removed
    gates: Mapping[str, str] = field(default_factory=dict)  # the return value of the method's `gate`
    # Mean losses over so many global batches of training images, each without what a structure removes; in fp32 and in evaluation mode.
    losses: Callable[[Sequence[Structure], int], list[float]] = _no_losses
    say: Callable[[str], None] = print  # a line for the job's log, on one rank
    remove: Callable[[Structure], None] = _no_engine  # units or blocks, or merges tokens, once; resets the optimizer, `groups`, `gates`
    add_l1: Callable[[str, float], None] = _no_engine  # only within after_backward; adds strength * sign(w) to a parameter's gradient

    def weights(self) -> dict[str, Tensor]:
        """The fp32 weights of every prunable parameter."""
        return {name: self.read_weight(name) for name in self.names}

    def gradients(self) -> dict[str, Tensor]:
        """The gradients of every prunable parameter."""
        return {name: self.read_gradient(name) for name in self.names}

    def kept(self) -> dict[str, Tensor]:
        """The masks, with one of all True for every prunable parameter that has none; empty if no prunable parameter has one."""
        if not any(name in self.masks for name in self.names):
            return {}
        import torch

        return {name: self.masks[name] if name in self.masks else torch.ones_like(self.read_weight(name), dtype=torch.bool) for name in self.names}

    def set_masks(self, masks: Mapping[str, Tensor]) -> None:
        """Replaces the masks. The weights that they drop are zero before the next forward pass; so are those that a method before has dropped."""
        within = {name: mask & self.inherited[name] if name in self.inherited else mask for name, mask in masks.items()}
        self.masks = {**self.inherited, **within}
        self.apply(self.masks)


@dataclass(frozen=True, kw_only=True)
class PruningMethod:
    """Knobs (fields), stages, and hooks that do nothing by default. The fields are part of a cell's identity."""

    name: ClassVar[str]
    needs_gradients: ClassVar[bool] = False  # True: `after_backward` is called, with dense gradients
    removes_units: ClassVar[bool] = False  # True: makes the network smaller with `NetworkView.remove`
    removes_blocks: ClassVar[bool] = False  # True: likewise, and needs no groups of units

    @property
    def keeps_dense(self) -> bool:
        """True: masked weights go on training, and can come back. Only the forward and backward passes see the mask."""
        return False

    @property
    def keeps_pattern(self) -> bool:
        """True: its masks keep a pattern among the neighbours of a row, which a removal of units would break."""
        return False

    @property
    def calibration_batches(self) -> int:
        """Global batches with which the hooks are called in a stage without a step: gradients of the weights as they are. 0: it needs none."""
        return 0

    def stages(self, budget: Budget) -> tuple[Stage, ...]:
        """The stages of a cell, first stage first. ValueError, with the remedy, if the method cannot work on the budget."""
        raise NotImplementedError

    def check(self, network: Module) -> None:
        """Raises ValueError, with numbers, if this network cannot be pruned so. Called before submission, with a network on the meta device."""

    def gate(self, network: Module, groups: tuple[Group, ...]) -> Mapping[str, str]:
        """Puts gates into the network before the engine takes it over. Returns the name of each group's gate parameter, by the group's name."""
        return {}

    def begin(self, network: NetworkView) -> None:
        """Called before the first step of a stage in which the method acts. A stage that resumes does not call it again."""

    def after_backward(self, network: NetworkView, progress: Progress) -> None:
        """Called after the backward pass of a whole global batch, before the optimizer's step."""

    def after_step(self, network: NetworkView, progress: Progress) -> None:
        """Called after an optimizer step, with the masks enforced."""
