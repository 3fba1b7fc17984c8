"""Keeps pruned weights at exactly zero: in the fp32 master, the parameter, the gradient, the optimizer's moments and the averaged weights.

A hook of the torch optimizer zeroes the rank's own part of the master after every update, before DeepSpeed copies it to the parameter. (A mask on
the parameter alone is undone by that copy, and one applied to the gradient alone leaks through momentum and weight decay.)

Where weights are to live on under the mask (`keeps_dense`), a copy aside has them: it is put into the masters before every update, which is that of
the dense weights with their dense gradient and moments, and taken from them again before they are zeroed. Outside an update masters are masked.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from jobs.parallel.engine import Engine
from jobs.parallel.fragments import Fragments, write_parameter
from models.pruning.masks import sparsity_of


class Masking:
    """The masks in force on an engine, whole (the same on every rank) and cut to the rank's fragments."""

    def __init__(self, engine: Engine, fragments: Fragments, *, keeps_dense: bool = False) -> None:
        """Nothing is masked until `apply`."""
        self.engine, self.fragments, self.keeps_dense = engine, fragments, keeps_dense
        self.masks: dict[str, Tensor] = {}  # True where a weight lives
        self.dropped: dict[str, Tensor] = {}  # True where it does not; the rank's own part
        self.dense: dict[str, Tensor] = {}  # keeps_dense: the rank's own part of the weights as they are without the masks
        if keeps_dense:
            engine.before_optimizer_step(self.uncover)
        engine.after_optimizer_step(self.enforce)

    @torch.no_grad()
    def apply(self, masks: Mapping[str, Tensor]) -> None:
        """Replaces the masks, and zeroes at once what they drop; names left out become dense. ValueError for a name or shape that is not there."""
        for name, mask in masks.items():
            fragment = self.fragments.by_name.get(name)
            if fragment is None or mask.shape != fragment.shape:
                there = "no such parameter" if fragment is None else f"the parameter has {tuple(fragment.shape)}"
                raise ValueError(f"mask {name!r} of shape {tuple(mask.shape)}: {there}")
        self.uncover()
        device, touched = self.engine.ranks.device, {**self.dense, **masks}
        self.masks = {name: mask.to(device, torch.bool) for name, mask in masks.items()}
        self.dropped = {name: ~self.fragments.by_name[name].cut(mask) for name, mask in self.masks.items()}
        self.dense = {name: torch.empty_like(self.fragments.by_name[name].master()) for name in masks} if self.keeps_dense else {}
        self.enforce()
        if not self.keeps_dense:
            self.zero_moments()
        for name, value in self.fragments.weights(*touched).items() if touched else ():
            write_parameter(self.fragments.by_name[name], value)

    @torch.no_grad()
    def uncover(self) -> None:
        """Puts the weights that live under the masks back into this rank's masters."""
        for name, weights in self.dense.items():
            self.fragments.by_name[name].master().copy_(weights)

    @torch.no_grad()
    def enforce(self) -> None:
        """Zeroes the dropped part of this rank's masters, kept aside where it lives on."""
        for name, dropped in self.dropped.items():
            master = self.fragments.by_name[name].master()
            if self.keeps_dense:
                self.dense[name].copy_(master)
            master.masked_fill_(dropped, 0.0)

    def zero_moments(self) -> None:
        """Zeroes the optimizer's moments of dropped weights."""
        for name, dropped in self.dropped.items():
            for moment in self.fragments.by_name[name].states(self.engine.optimizer).values():
                moment.masked_fill_(dropped, 0.0)

    def restore_dense(self, parts: Mapping[str, Tensor]) -> None:
        """Takes the weights under the masks from a checkpoint; a copy of `dense`, of the masks in force."""
        for name, part in parts.items():
            self.dense[name].copy_(part)

    def weight(self, name: str) -> Tensor:
        """The whole fp32 weight, with what lives on under the mask; a collective."""
        if name in self.dense:
            return self.fragments.gather({name: self.dense[name]})[name]
        return self.fragments.weights(name)[name]

    @torch.no_grad()
    def zero(self, parts: Mapping[str, Tensor]) -> None:
        """Zeroes the dropped elements of tensors that are cut as the masters are."""
        for name, dropped in self.dropped.items():
            parts[name].masked_fill_(dropped, 0.0)

    def zero_gradients(self) -> None:
        """Keeps masked weights out of the clipping norm and the moments, unless they live on. After the last backward pass, before the step."""
        if self.keeps_dense:
            return
        for name, dropped in self.dropped.items():
            self.fragments.zero_gradient(name, dropped)

    def sparsity(self) -> float:
        """Share of the masked parameters' weights that are dropped; 0 without masks."""
        return sparsity_of(self.masks)
