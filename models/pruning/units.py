"""What can be removed from a network: its groups of units. A unit is an inner channel, an attention head, a hidden unit, a state.

The channels of the residual stream are no units: every block reads and writes them. A module that no row here names has nothing to remove.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.nn import Module

KINDS: dict[str, str] = {
    "inner": "channels between a mixer's in_proj and out_proj, with their convolution, A, D and Delta",
    "heads": "attention heads, those of the final attention pooling among them",
    "mlp": "hidden units of feed-forward layers",
    "conv": "channels between the two convolutions of a block, of the stem, and inside inverted residuals",
    "se": "hidden units of squeeze-and-excitation",
    "state": "states of a scan: A, B and C together",
}
DEFAULT_KINDS = ("inner", "heads", "mlp", "conv")


@dataclass(frozen=True, kw_only=True)
class Units:
    """A group of units of one module, and where the graph of dependencies is entered to find all that they own."""

    name: str  # within the network: layers.0.mixer.d_inner
    kind: str
    root: Any  # a layer or a bare parameter
    side: str  # of the root, where the units lie: its outputs, "out", or its inputs, "in"
    consumer: Any  # the layer whose inputs the units are, so that a factor on them is a factor on the unit; None for states
    count: int
    first: int = 0  # index of the first unit at the root's side
    width: int = 1  # indices that a unit takes there
    consumed: int = 0  # index of the first unit among the consumer's inputs

    def indices(self, units: Sequence[int]) -> list[int]:
        """What some units take at the root's side."""
        return [self.first + unit * self.width + offset for unit in units for offset in range(self.width)]


def check_kinds(kinds: Sequence[str]) -> None:
    """Raises ValueError when a kind is unknown, given twice, or when there is none; the message has the valid names and the nearest one."""
    for kind in kinds:
        if kind not in KINDS:
            near = get_close_matches(kind, KINDS, 1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ValueError(f"unknown units '{kind}'{hint} Valid units: {', '.join(KINDS)}")
    if not kinds or len(set(kinds)) < len(kinds):
        raise ValueError(f"units must name at least one kind, each once, got {list(kinds)}. Valid units: {', '.join(KINDS)}")


def units_of(model: Module, kinds: Sequence[str] | None = None) -> tuple[Units, ...]:
    """Every group of two units or more, in the model's order; of some kinds where they are given."""
    found = (units for name, module in model.named_modules() for units in declared(name, module))
    return tuple(units for units in found if units.count > 1 and (kinds is None or units.kind in kinds))


def declared(name: str, module: Module) -> Iterator[Units]:
    """The groups of one module."""
    for suffix, fields in UNITS.get(f"{type(module).__module__}.{type(module).__name__}", _nothing)(module):
        yield Units(name=f"{name}.{suffix}" if name else suffix, **fields)


Declared = Iterator[tuple[str, dict[str, Any]]]


def _nothing(module: Any) -> Declared:
    return iter(())


def _bidirectional_mixer(mixer: Any) -> Declared:
    yield "d_inner", _inputs("inner", mixer.out_proj)
    if not mixer.fixed:
        yield "d_state", _states(mixer.x_proj, mixer.A_log.shape[1], first=mixer.dt_proj.in_features)
        yield "d_state_b", _states(mixer.x_proj_b, mixer.A_b_log.shape[1], first=mixer.dt_proj_b.in_features)


def _mambavision_mixer(mixer: Any) -> Declared:
    scanned, other = mixer.conv1d_x, mixer.conv1d_z
    yield "d_inner_x", _outputs("inner", scanned, scanned.out_channels, mixer.out_proj)
    yield "d_inner_z", _outputs("inner", other, other.out_channels, mixer.out_proj) | {"consumed": scanned.out_channels}
    if mixer.ssm is None:
        yield "d_state", _states(mixer.x_proj, mixer.A_log.shape[1], first=mixer.dt_proj.in_features)


def _attention(attention: Any) -> Declared:
    heads = attention.proj.in_features // attention.head_dim
    yield "heads", _inputs("heads", attention.proj) | {"count": heads, "width": attention.head_dim}


def _mambavision(network: Any) -> Declared:
    if network.pool is not None:
        value, width = network.pool.value, network.pool.value_dim
        yield "pool.heads", _outputs("heads", value, value.out_features // width, network.head) | {"width": width}


def _conv_block(block: Any) -> Declared:
    first = block.conv1 if hasattr(block.conv1, "out_channels") else block.conv1[-1]
    yield "hidden", _outputs("conv", first, first.out_channels, block.conv2)


def _sequence(first: Any, last: Any) -> Declared:
    """The channels that the first convolution of a sequence makes and the last one takes."""
    yield "hidden", _outputs("conv", first, first.out_channels, last)


UNITS: Mapping[str, Callable[[Any], Declared]] = {
    "models.vim.BidirectionalMixer": _bidirectional_mixer,
    "models.mambavision.SSMMixer": _mambavision_mixer,
    "models.ssm.s4d.S4D": lambda ssm: iter([("d_state", _states(ssm.log_A_real, ssm.log_A_real.shape[1]))]),
    "models.ssm.s5.S5": lambda ssm: iter([("d_state", _states(ssm.Lambda_re, len(ssm.Lambda_re)))]),
    "models.attention.Attention": _attention,
    "models.attention.SlidingWindowAttention": _attention,
    "models.mambavision.MambaVision": _mambavision,
    "models.layers.Mlp": lambda mlp: iter([("hidden", _inputs("mlp", mlp.fc2))]),
    "timm.layers.mlp.Mlp": lambda mlp: iter([("hidden", _inputs("mlp", mlp.fc2))]),
    "models.convolution.ConvBlock": _conv_block,
    "models.convolution.InvertedBlock": lambda block: _sequence(block.branch[0], block.branch[6]),
    "models.convolution.Stem": lambda stem: _sequence(stem.conv_down[0], stem.conv_down[3]),
    "models.layers.InvertedTokenPath": lambda path: iter([("hidden", _inputs("conv", path.narrow))]),
    "models.layers.SqueezeExcite": lambda se: iter([("hidden", _inputs("se", se.excite))]),
    "models.convolution.MapExcite": lambda se: iter([("hidden", _outputs("se", se.reduce, se.reduce.out_channels, se.excite))]),
}


def _inputs(kind: str, layer: Any) -> dict[str, Any]:
    """Every input of a linear layer is a unit."""
    return {"kind": kind, "root": layer, "side": "in", "consumer": layer, "count": layer.in_features}


def _outputs(kind: str, layer: Any, count: int, consumer: Any) -> dict[str, Any]:
    """Outputs of a layer are units."""
    return {"kind": kind, "root": layer, "side": "out", "consumer": consumer, "count": count}


def _states(root: Any, count: int, first: int = 0) -> dict[str, Any]:
    """States, found from the rows of x_proj that make B, or from the state matrix of a fixed state space."""
    return {"kind": "state", "root": root, "side": "out", "consumer": None, "count": count, "first": first}
