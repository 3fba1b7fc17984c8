"""Surrogates for the scans, in which the dependency graph cannot be traced. A surrogate only says which tensors share an axis.

Tracing the scan itself takes too long (one step per token), and the graph would not show that a channel of u owns a row of A_log, or that a state
owns a column of A_log, a row of B and a row of C. A surrogate multiplies the tensors that share an axis element by element, which couples them.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from models.meta_twin import meta_twin
from models.ssm.s4d import S4D
from models.ssm.s5 import S5

Axis = Literal["channels", "states"]

# The dimensions of bare parameters that hold channels and states, by the last part of the name, without the number of a direction.
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
    "A_logs": {"channels": 0, "states": 1},
    "Ds": {"channels": 0},
    "x_proj_weight": {"channels": 2, "states": 1},
    "dt_projs_weight": {"channels": 1},
    "dt_projs_bias": {"channels": 1},
}


def surrogate(model: nn.Module, axis: Axis) -> tuple[nn.Module, list[Tensor]]:
    """(a copy of the network on the meta device whose scans couple the tensors that share `axis`, a list). A forward pass fills the list with the
    couplings of states, which reach no output of the network.
    """
    twin = meta_twin(model)
    states: list[Tensor] = []
    module: Any  # its methods are replaced
    for module in twin.modules():
        for backend in {"scan_backend", "backend"} & vars(module).keys():
            setattr(module, backend, "reference")
        if getattr(module, "merging", None) is not None:
            module.merging = None  # it owns no weight
        if hasattr(module, "scan"):
            module.scan = scan_channels if axis == "channels" else partial(scan_states, states)
        kind = type(module).__name__
        if kind in ("S4D", "S5"):
            for name, parameter in list(module.named_parameters()):
                if parameter.dim() == 3:  # a complex number as a pair; half of it will do, as torch-pruning maps only two dimensions through cat
                    setattr(module, name, nn.Parameter(parameter[..., 0]))
            module.forward = partial(FIXED[kind, axis], module, states)
        if kind == "SSD":
            module.mix = partial(_heads, axis, module, states)
        if kind == "SS2D":
            module.four_ways = partial(_four_ways, axis, module, states)
    return twin, states


def bare_parameters(model: nn.Module, axis: Axis) -> Iterator[tuple[nn.Parameter, int]]:
    """Parameters outside of layers that have the axis, each with the dimension of the axis."""
    for name, parameter in model.named_parameters():
        dimensions: Mapping[Axis, int] = DIMENSIONS.get(re.sub(r"_\d+$", "", name.split(".")[-1]), {})
        if axis in dimensions:
            yield parameter, dimensions[axis]


class Slices(TorchFunctionMode):
    """A mode in which a split is made of slices. torch-pruning maps indices through any slice, but through a split only if each part is used once."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The result of `func`, which torch does not call itself in this mode."""
        options = kwargs or {}
        if func not in SPLITS:
            return func(*args, **options)
        parts, dim = func(*args, **options), options.get("dim", args[2] if len(args) > 2 else 0)
        sizes = [part.shape[dim] for part in parts]
        return tuple(args[0].narrow(dim, sum(sizes[:index]), size) for index, size in enumerate(sizes))


SPLITS = (torch.Tensor.split, torch.split, torch.Tensor.chunk, torch.chunk)


def scan_channels(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor | None = None, **options: object) -> Tensor:
    """Couples the channels of the selective scan: u, delta, z, the rows of A, and D."""
    y = u * delta * A.sum(1, keepdim=True) * D.unsqueeze(-1)
    return y if z is None else y * z


def scan_states(states: list[Tensor], u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, **options: object) -> Tensor:
    """Couples the states of the selective scan: the columns of A, and B and C."""
    states.append(B * C * A.sum(0).unsqueeze(-1))
    return u * 1


def _s4d_channels(ssm: S4D, states: list[Tensor], u: Tensor, reverse: bool = False) -> Tensor:
    return u * (ssm.log_dt * ssm.D * ssm.log_A_real.sum(1) * ssm.A_imag.sum(1) * ssm.C.sum(1))


def _s5_channels(ssm: S5, states: list[Tensor], u: Tensor, reverse: bool = False) -> Tensor:
    return u * (ssm.D * ssm.B.sum(0) * ssm.C.sum(1))


def _s4d_states(ssm: S4D, states: list[Tensor], u: Tensor, reverse: bool = False) -> Tensor:
    states.append(ssm.log_A_real * ssm.A_imag * ssm.C)
    return u * 1


def _s5_states(ssm: S5, states: list[Tensor], u: Tensor, reverse: bool = False) -> Tensor:
    states.append(ssm.Lambda_re * ssm.Lambda_im * ssm.log_step * ssm.B.sum(1) * ssm.C.sum(0))
    return u * 1


def _heads(axis: Axis, mixer: Any, states: list[Tensor], maps: Tensor, dt: Tensor) -> Tensor:
    """The channels of VSSD's X, or its states, which couple B and C. Heads are no axis in the graph: `Units.beside` has what they own beside X."""
    inner = mixer.out_proj.in_features
    if axis == "states":
        count = (maps.shape[1] - inner) // 2
        states.append(maps.narrow(1, inner, count) * maps.narrow(1, inner + count, count))
    return maps.narrow(1, 0, inner) * 1


def _four_ways(axis: Axis, mixer: Any, states: list[Tensor], x: Tensor) -> Tensor:
    """Couples the four directions of a map, (B, D, H, W): they share channels, and a state belongs to all of them."""
    tokens = x.permute(0, 2, 3, 1)
    if mixer.fixed:
        for ssm in mixer.ssm:
            tokens = ssm(tokens)
    elif axis == "channels":
        channels = mixer.out_proj.in_features
        for bare in (mixer.A_logs.sum(1), mixer.Ds):
            for direction in range(4):
                tokens = tokens * bare.narrow(0, direction * channels, channels)
        tokens = tokens * (mixer.x_proj_weight.sum((0, 1)) * mixer.dt_projs_weight.sum((0, 2)) * mixer.dt_projs_bias.sum(0))
    elif mixer.A_logs.shape[1] > 1:  # a single state cannot be removed
        rank, count = mixer.dt_projs_weight.shape[2], mixer.A_logs.shape[1]
        shared = mixer.x_proj_weight.sum((0, 2))
        states.append(mixer.A_logs.sum(0) * shared.narrow(0, rank, count) * shared.narrow(0, rank + count, count))
    return tokens.permute(0, 3, 1, 2) * 1


FIXED: dict[tuple[str, Axis], Callable[..., Tensor]] = {
    ("S4D", "channels"): _s4d_channels,
    ("S5", "channels"): _s5_channels,
    ("S4D", "states"): _s4d_states,
    ("S5", "states"): _s5_states,
}
