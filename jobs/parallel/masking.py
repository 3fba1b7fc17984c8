"""Keeps pruned weights at exactly zero: in the fp32 master, the parameter, the gradient, the optimizer's moments and the averaged weights.

A hook of the torch optimizer zeroes the rank's own part of the master after every update, before DeepSpeed copies it to the parameter. (That copy
would undo a mask on the parameter alone. A mask on the gradient alone leaks through momentum and weight decay.)

With `keeps_dense`, weights live on under the mask, in a copy. Before every update the copy is put into the masters, so that dense weights are updated
with their dense gradient and moments. After it, the copy is taken from them again, and they are zeroed. Between updates masters are masked.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from jobs.parallel.engine import Engine
from jobs.parallel.fragments import Fragments, write_parameter
from models.pruning.masks import sparsity_of


class Masking:
    """The masks of an engine's weights, whole (the same on every rank) and cut to the rank's fragments."""

    def __init__(self, engine: Engine, fragments: Fragments, *, keeps_dense: bool = False) -> None:
        """Nothing is masked until `apply`."""
        self.engine, self.fragments, self.keeps_dense = engine, fragments, keeps_dense
        self.masks: dict[str, Tensor] = {}  # True where a weight lives
        self.dropped: dict[str, Tensor] = {}  # True where it does not; the rank's own part, a view of `flat_dropped`
        self.flat_dropped: dict[int, Tensor] = {}  # laid out as the owners of the masters, by their numbers; only those with masks
        self.dense: dict[str, Tensor] = {}  # keeps_dense: the rank's own part of the weights without the masks
        if keeps_dense:
            engine.before_optimizer_step(self.uncover)
        engine.after_optimizer_step(self.enforce)

    @torch.no_grad()
    def apply(self, masks: Mapping[str, Tensor]) -> None:
        """Replaces the masks and zeroes the weights that they drop. Parameters without a mask become dense.

        Raises ValueError for an unknown name or another shape than the parameter's.
        """
        for name, mask in masks.items():
            fragment = self.fragments.by_name.get(name)
            if fragment is None or mask.shape != fragment.shape:
                reason = "no such parameter" if fragment is None else f"the parameter has {tuple(fragment.shape)}"
                raise ValueError(f"mask {name!r} of shape {tuple(mask.shape)}: {reason}")
        self.uncover()
        device, touched = self.engine.ranks.device, {**self.dense, **masks}
        self.masks = {name: mask.to(device, torch.bool) for name, mask in masks.items()}
        self._cut()
        self.dense = {name: torch.empty_like(self.fragments.by_name[name].master()) for name in masks} if self.keeps_dense else {}
        self.enforce()
        if not self.keeps_dense:
            self.zero_moments()
        for name, value in self.fragments.weights(*touched).items() if touched else ():
            write_parameter(self.fragments.by_name[name], value)

    def _cut(self) -> None:
        """Lays the dropped part of the masks out as the masters are, so that one operation serves all parameters of an owner."""
        masked = {id(self.fragments.by_name[name].owner) for name in self.masks}
        flats = [torch.zeros_like(flat, dtype=torch.bool) for flat in self.fragments.flats()] if masked else []
        self.flat_dropped = {number: flats[number] for number, owner in enumerate(self.fragments.owners()) if id(owner) in masked}
        parts = self.fragments.parts(flats) if masked else {}
        self.dropped = {name: parts[name] for name in self.masks}
        for name, mask in self.masks.items():
            torch.logical_not(self.fragments.by_name[name].cut(mask), out=self.dropped[name])

    @torch.no_grad()
    def uncover(self) -> None:
        """Puts the weights under the masks back into this rank's masters."""
        if self.dense:
            torch._foreach_copy_(self._covered(), [*self.dense.values()])

    def _covered(self) -> list[Tensor]:
        """The masters of the weights that live on under the masks."""
        return [self.fragments.by_name[name].master() for name in self.dense]

    @torch.no_grad()
    def enforce(self) -> None:
        """Zeroes the dropped part of this rank's masters. With `keeps_dense`, copies the masters first."""
        if self.dense:
            torch._foreach_copy_([*self.dense.values()], self._covered())
        self.zero(self.fragments.flats())

    def zero_moments(self) -> None:
        """Zeroes the optimizer's moments of dropped weights."""
        for name, dropped in self.dropped.items():
            for moment in self.fragments.by_name[name].states(self.engine.optimizer).values():
                moment.masked_fill_(dropped, 0.0)

    def restore_dense(self, parts: Mapping[str, Tensor]) -> None:
        """Takes the weights under the masks from a checkpoint. `parts`: a copy of `dense` under the same masks."""
        for name, part in parts.items():
            self.dense[name].copy_(part)

    def weight(self, name: str) -> Tensor:
        """The whole fp32 weight, including the weights under the mask; a collective."""
        if name in self.dense:
            return self.fragments.gather({name: self.dense[name]})[name]
        return self.fragments.weights(name)[name]

    @torch.no_grad()
    def zero(self, flats: Sequence[Tensor]) -> None:
        """Zeroes the dropped elements of tensors that are laid out as this rank's masters (`Fragments.flats`)."""
        for number, dropped in self.flat_dropped.items():
            flats[number].masked_fill_(dropped, 0.0)

    def zero_gradients(self) -> None:
        """Keeps masked weights out of the clipping norm and the moments, except with `keeps_dense`.

        To be called between the last backward pass and the step.
        """
        if self.masks and not self.keeps_dense:
            self.fragments.zero_gradients(self.flat_dropped, self.dropped)

    def sparsity(self) -> float:
        """The fraction of the masked parameters' weights that are dropped; 0 without masks."""
        return sparsity_of(self.masks)
