"""Learnable gates: one factor per unit, which training under L1 pushes to zero if the unit is not needed.

If a norm already scales the units, its scale is the gate (Liu et al., arXiv 1708.06519). Otherwise the factor is put on the weight through which all
of the unit's effect goes: the columns of the layer that consumes it, or C for a state. After the search the product becomes the weight.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from models.pruning.structure import Group, one_to_one
from models.pruning.units import Units, units_of


class Gate(nn.Module):
    """A parametrization that multiplies the entries of each unit in a weight by the unit's factor, initially 1."""

    def __init__(self, units: Units, weight: Tensor) -> None:
        super().__init__()
        self.width, self.shape = units.width, [-1 if axis == units.axis else 1 for axis in range(weight.ndim)]
        self.around = (units.consumed, weight.shape[units.axis] - units.consumed - units.count * units.width)  # entries of other units
        self.scale = nn.Parameter(weight.new_ones(units.count))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight's shape and dtype."""
        factors = F.pad(self.scale.repeat_interleave(self.width), self.around, value=1.0)
        return weight * factors.view(self.shape).to(weight.dtype)


def insert_gates(model: nn.Module, groups: Sequence[Group]) -> dict[str, str]:
    """The name of each group's gate parameter, by the group's name. Adds a gate for every group whose units no norm scales.

    ValueError for units that no weight scales.
    """
    declared = {units.name: units for units in units_of(model)}
    names = {id(module): name for name, module in model.named_modules()}
    gates: dict[str, str] = {}
    for group in groups:
        alone = (part for part in group.parts if part.dimension is None and part.indices.shape[1] == 1)  # a factor for each unit
        norms = (part.name for part in alone if scales(model.get_submodule(part.name)))
        norm = next((name for name in norms if len(model.get_parameter(f"{name}.weight")) == group.count), None)
        if norm is not None:
            gates[group.name] = f"{norm}.weight"
            continue
        units = declared[group.name]
        check_gates([units])
        module, weight = units.consumer, units.weight
        gate = Gate(units, getattr(module, weight))
        if not parametrize.is_parametrized(module):
            module.parameters_in_order = list(module._parameters)
        parametrize.register_parametrization(module, weight, gate)
        gates[group.name] = f"{names[id(module)]}.parametrizations.{weight}.{len(module.parametrizations[weight]) - 1}.scale"
    return gates


def check_gates(groups: Sequence[Units]) -> None:
    """Raises ValueError for units that can have no gate."""
    for units in groups:
        if units.consumer is None and not units.scaled:
            reason = "no weight carries all that such a unit does, so that it can have no learned factor"
            raise ValueError(f"{units.name}: {reason}; leave {units.kind} out of units, or remove them with the method structured")


def scales(layer: nn.Module) -> bool:
    """True if a layer of a group is a norm: its weight is a factor on each of its channels."""
    return one_to_one(layer) and not hasattr(layer, "kernel_size")


@torch.no_grad()
def fold_gates(model: nn.Module) -> None:
    """Replaces each gated weight by its product with the gates, under its old name and position. The network's outputs stay the same."""
    for module in [module for module in model.modules() if parametrize.is_parametrized(module)]:
        gated: Any = module
        products = {name: nn.Parameter(getattr(module, name)) for name in gated.parametrizations}
        # not by remove_parametrizations: it breaks the copies of the module, which share its class, and puts the weight behind the bias
        del gated.parametrizations
        gated.__class__ = type(module).__bases__[0]
        parameters = {**gated._parameters, **products}
        gated._parameters.clear()
        for name in gated.parameters_in_order:
            gated.register_parameter(name, parameters[name])
        del gated.parameters_in_order
