"""Surrogates for what the graph of dependencies cannot see: the scans. Each says which tensors share an axis, and nothing else of what a scan does.

Tracing the scan itself does not end (it is one step a token), and no graph tells that a channel of u owns a row of A_log, or that a state owns a
column of A_log, a row of B and a row of C. Here the tensors that share an axis are multiplied element by element, which couples them in the graph.
"""

import copy
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Axis = Literal["channels", "states"]

# The dimension of bare parameters that holds channels, and the one that holds states; by the last part of the name.
DIMENSIONS: dict[str, dict[Axis, int]] = {
    "A_log": {"channels": 0, "states": 1},
    "A_b_log": {"channels": 0, "states": 1},
    "D": {"channels": 0},
    "D_b": {"channels": 0},
    "log_dt": {"channels": 0},
    "log_A_real": {"channels": 0, "states": 1},
    "A_imag": {"channels": 0, "states": 1},
    "C": {"channels": 0, "states": 1},
    "B": {"channels": 1, "states": 0},
    "Lambda_re": {"states": 0},
    "Lambda_im": {"states": 0},
    "log_step": {"states": 0},
    "query": {"channels": 1},
}


def surrogate(model: nn.Module, axis: Axis) -> tuple[nn.Module, list[Tensor]]:
    """A copy of the network without memory (meta device) whose scans couple what shares `axis`, and the list that a forward pass fills with couplings
    of states, which reach no output of the network.
    """
    without_memory: dict[int, Any] = {id(one): nn.Parameter(one.detach().to("meta")) for one in model.parameters()}
    twin, states = copy.deepcopy(model, without_memory).to("meta").eval(), []
    for module in twin.modules():
        for backend in {"scan_backend", "backend"} & vars(module).keys():
            setattr(module, backend, "reference")
        if hasattr(module, "scan"):
            module.scan = scan_channels if axis == "channels" else partial(scan_states, states)
        kind = type(module).__name__
        if kind in ("S4D", "S5"):
            for name, parameter in list(module.named_parameters()):
                if parameter.dim() == 3:  # pairs of numbers, of which one will do: torch-pruning maps nothing through cat beside three dimensions
                    setattr(module, name, nn.Parameter(parameter[..., 0]))
            module.forward = partial(FIXED[kind, axis], module, states)  # type: ignore[method-assign]
    return twin, states


def bare_parameters(model: nn.Module, axis: Axis) -> Iterator[tuple[nn.Parameter, int]]:
    """Parameters outside of layers that have the axis, each with its dimension."""
    for name, parameter in model.named_parameters():
        dimensions: Mapping[Axis, int] = DIMENSIONS.get(name.split(".")[-1], {})
        if axis in dimensions:
            yield parameter, dimensions[axis]


class Slices(TorchFunctionMode):
    """Within it a split is made of slices: torch-pruning maps indices through a slice wherever it goes, but through a split only where each part is
    used once.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """What torch calls in place of `func`."""
        if func is not torch.Tensor.split:
            return func(*args, **(kwargs or {}))
        tensor, sizes, dim = args[0], args[1], (kwargs or {}).get("dim", 0)
        return tuple(tensor.narrow(dim, sum(sizes[:place]), size) for place, size in enumerate(sizes))


def scan_channels(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor | None = None, **options: object) -> Tensor:
    """Channels of the selective scan: u, delta, z, the rows of A, and D."""
    y = u * delta * A.sum(1, keepdim=True) * D.unsqueeze(-1)
    return y if z is None else y * z


def scan_states(states: list[Tensor], u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, **options: object) -> Tensor:
    """States of the selective scan: the columns of A, and B and C."""
    states.append(B * C * A.sum(0).unsqueeze(-1))
    return u * 1


def _s4d_channels(ssm: Any, states: list[Tensor], u: Tensor, reverse: bool = False) -> Tensor:
    return u * (ssm.log_dt * ssm.D * ssm.log_A_real.sum(1) * ssm.A_imag.sum(1) * ssm.C.sum(1))


def _s5_channels(ssm: Any, states: list[Tensor], u: Tensor, reverse: bool = False) -> Tensor:
    return u * (ssm.D * ssm.B.sum(0) * ssm.C.sum(1))


def _s4d_states(ssm: Any, states: list[Tensor], u: Tensor, reverse: bool = False) -> Tensor:
    states.append(ssm.log_A_real * ssm.A_imag * ssm.C)
    return u * 1


def _s5_states(ssm: Any, states: list[Tensor], u: Tensor, reverse: bool = False) -> Tensor:
    states.append(ssm.Lambda_re * ssm.Lambda_im * ssm.log_step * ssm.B.sum(1) * ssm.C.sum(0))
    return u * 1


FIXED = {("S4D", "channels"): _s4d_channels, ("S5", "channels"): _s5_channels, ("S4D", "states"): _s4d_states, ("S5", "states"): _s5_states}
