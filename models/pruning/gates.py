"""Learnable gates: one factor a unit, which training under L1 pushes to zero where the unit is not needed.

Where a norm scales the units already, its scale is the gate (Liu et al., arXiv 1708.06519); elsewhere a factor is put before the layer that consumes
the units, and folded into that layer's weight when the search is over.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.pruning.structure import Group, one_to_one
from models.pruning.units import units_of


class Gate(nn.Module):
    """x with the inputs of each unit multiplied by the unit's factor, 1 at the start."""

    def __init__(self, *, units: int, width: int, first: int, inputs: int) -> None:
        super().__init__()
        self.width, self.first, self.inputs = width, first, inputs
        self.scale = nn.Parameter(torch.ones(units))

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) from the same."""
        return x * self.factors()

    def factors(self) -> Tensor:
        """(inputs,): 1 where another group's units lie."""
        own = self.scale.repeat_interleave(self.width)
        return F.pad(own, (self.first, self.inputs - self.first - len(own)), value=1.0)


def insert_gates(model: nn.Module, groups: Sequence[Group]) -> dict[str, str]:
    """Puts a gate before the consumer of every group whose units no norm scales. The parameter that is each group's gate, by the group's name."""
    declared = {units.name: units for units in units_of(model)}
    names = {id(module): name for name, module in model.named_modules()}
    gates: dict[str, str] = {}
    for group in groups:
        norm = next((part.name for part in group.parts if part.dimension is None and scales(model.get_submodule(part.name))), None)
        if norm is not None:
            gates[group.name] = f"{norm}.weight"
            continue
        units = declared[group.name]
        layer, child = units.consumer, f"gate_{group.name.split('.')[-1]}"
        if not any(isinstance(part, Gate) for part in layer.children()):
            layer.register_forward_pre_hook(gated)
        layer.add_module(child, Gate(units=units.count, width=units.width, first=units.consumed, inputs=layer.in_features))
        gates[group.name] = f"{names[id(layer)]}.{child}.scale"
    return gates


def scales(layer: nn.Module) -> bool:
    """Whether a layer of a group is a norm, whose weight is a factor on each of its channels."""
    return one_to_one(layer) and not hasattr(layer, "kernel_size")


def gated(layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """A layer's inputs, through its gates."""
    x, *others = inputs
    for child in layer.children():
        if isinstance(child, Gate):
            x = child(x)
    return (x, *others)


@torch.no_grad()
def fold_gates(model: nn.Module) -> None:
    """Multiplies each gate into the weight that consumes its units, and takes the gates out: the network computes the same."""
    for layer in model.modules():
        for name, child in list(layer.named_children()):
            if isinstance(child, Gate):
                layer.weight.mul_(child.factors())  # type: ignore[operator, union-attr]
                delattr(layer, name)
        for number, hook in list(layer._forward_pre_hooks.items()):
            if hook is gated:
                del layer._forward_pre_hooks[number]
