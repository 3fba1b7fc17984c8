"""The groups of units that can be removed from a network. A unit is an inner channel, an attention head, a hidden unit, or a state.

The channels of the residual stream are not units, because every block reads and writes them. A module has the units of its
row in UNITS, or of its own method `prunable_units`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from models.pruning.scope import check_names

if TYPE_CHECKING:
    from torch.nn import Module

KINDS: dict[str, str] = {
    "inner": "channels between a mixer's in_proj and out_proj, with their convolution, A, D and Delta; hidden channels of MambaOut's gated blocks",
    "heads": "attention heads, those of the final attention pooling included, and heads of a state space",
    "mlp": "hidden units of feed-forward layers",
    "conv": "channels between the two convolutions of a block, of the stem, and inside inverted residuals",
    "se": "hidden units of squeeze-and-excitation",
    "state": "states of a scan: A, B and C together",
}
DEFAULT_KINDS = ("inner", "heads", "mlp", "conv")


@dataclass(frozen=True, kw_only=True)
class Beside:
    """Entries that belong to units one by one, and that no dependency graph finds, such as the rate of a head beside the head's channels."""

    name: str  # of a layer, whose outputs they are, or of a bare parameter; as `Units.name`
    dimension: int | None  # of a bare parameter; None: a layer
    first: int = 0  # index of the first unit's entry


@dataclass(frozen=True, kw_only=True)
class Units:
    """A group of units of one module, and the layer at which the dependency graph is entered to find all that they own."""

    name: str  # within its module: d_inner; as `units_of` gives it, within the network: layers.0.mixer.d_inner
    kind: str
    root: Any  # a layer or a bare parameter
    side: str  # of the root, on which the units are: its outputs, "out", or its inputs, "in"
    consumer: Any  # a module whose `weight` all of a unit's effect goes through: a factor on its entries is a factor on the unit; None: there is none
    count: int
    first: int = 0  # index of the first unit on the root's side
    width: int = 1  # indices that a unit takes
    weight: str = "weight"  # a parameter of the consumer
    axis: int = 1  # of that parameter, along which the units are
    consumed: int = 0  # index of the first unit along that axis
    beside: tuple[Beside, ...] = ()
    traced: bool = True  # False: all that the units own is their root's side and `beside`
    scaled: bool = False  # a norm has a scale for each unit, which can be its factor

    def indices(self, units: Sequence[int]) -> list[int]:
        """The indices of some units on the root's side."""
        return [self.first + unit * self.width + offset for unit in units for offset in range(self.width)]


def check_kinds(kinds: Sequence[str]) -> None:
    """Raises ValueError if a kind is unknown or given twice, or if none is given. The message has the valid names and the nearest."""
    check_names("units", "kind of unit", kinds, KINDS)


def units_of(model: Module, kinds: Sequence[str] | None = None) -> tuple[Units, ...]:
    """Every group of two or more units, in the model's order; with `kinds`, only of these kinds."""
    declarations = timm_units if hasattr(model, "timm_name") else declared_units
    groups = declarations(model)
    return tuple(units for units in groups if units.count > 1 and (kinds is None or units.kind in kinds))


def declared_units(model: Module) -> Iterator[Units]:
    """The groups that the table UNITS gives the modules of a network."""
    return (units for name, module in model.named_modules() for units in declared(name, module))


def timm_units(model: Module) -> Iterator[Units]:
    """The groups of one of timm's networks, in its order: of modules that have a row by the table, all others by the dependency graph."""
    from models.pruning.graph_units import graph_units

    known = {units.root: units for units in graph_units(model).units}
    for name, module in model.named_modules():
        if has_row(module):
            yield from declared(name, module)
        if name in known:
            group = known[name]
            consumer = model.get_submodule(group.consumer) if group.consumer else None
            yield Units(name=group.name, kind=group.kind, root=module, side=group.side, consumer=consumer, count=group.count, scaled=group.scaled)


def reasons_of(model: Any) -> str:
    """Why layers of one of timm's networks write no units, for the end of a message; empty for other networks."""
    if not hasattr(model, "timm_name"):
        return ""
    from models.pruning.graph_units import graph_units

    layers = ", ".join(f"{reason} ({count} layers)" for reason, count in graph_units(model).why_none.items())
    return f"; the channels of {model.timm_name} meet {layers}" if layers else ""


def has_row(module: Any) -> bool:
    """True for the modules of timm's networks that the table names: gated blocks, and plain attention if no norm reads all its heads together."""
    kind = f"{type(module).__module__}.{type(module).__name__}"
    attention = kind == "timm.layers.attention.Attention" and not list(module.norm.parameters())
    return attention or kind == "timm.models.mambaout.GatedConvBlock"


def declared(name: str, module: Module) -> Iterator[Units]:
    """The groups of one module."""
    row = UNITS.get(f"{type(module).__module__}.{type(module).__name__}")
    own = getattr(module, "prunable_units", None)  # of a plug-in
    for units in row(module) if row else own() if callable(own) else ():
        start = f"{name}." if name else ""
        yield replace(units, name=start + units.name, beside=tuple(replace(part, name=start + part.name) for part in units.beside))


def _bidirectional_mixer(mixer: Any) -> Iterable[Units]:
    yield _inputs("d_inner", "inner", mixer.out_proj)
    if not mixer.fixed:
        for each in mixer.directions:
            A_log = mixer.get_parameter(each.A_log)
            yield _scan_states(f"d_state{each.ending}", mixer.part("x_proj", each), A_log, mixer.part("dt_proj", each))


def _mambavision_mixer(mixer: Any) -> Iterable[Units]:
    yield _outputs("d_inner_x", "inner", mixer.conv1d_x, mixer.out_proj)
    yield replace(_outputs("d_inner_z", "inner", mixer.conv1d_z, mixer.out_proj), consumed=mixer.conv1d_x.out_channels)
    if mixer.ssm is None:
        yield _scan_states("d_state", mixer.x_proj, mixer.A_log, mixer.dt_proj)


def _four_way_mixer(mixer: Any) -> Iterable[Units]:
    yield _inputs("d_inner", "inner", mixer.out_proj)
    if not mixer.fixed:
        states, rank = mixer.A_logs.shape[1], mixer.dt_projs_weight.shape[2]
        yield Units(
            name="d_state", kind="state", root=mixer.A_logs, side="out", consumer=mixer, count=states, weight="x_proj_weight", consumed=rank + states
        )


def _head_mixer(mixer: Any) -> Iterable[Units]:
    """Of VSSD: a head is its channels, and beside them its rate, its skip weight and the row that makes its Delta. A state is B times C, each behind
    a SiLU, so that no weight scales it.
    """
    if mixer.ssm is not None:  # without the state space nothing has heads
        return
    heads = mixer.A_log.shape[0]
    row = Beside(name="in_proj", dimension=None, first=mixer.in_proj.out_features - heads)
    beside = (*(Beside(name=name, dimension=0) for name in ("A_log", "D", "dt_bias")), row)
    yield replace(_inputs("heads", "heads", mixer.out_proj), count=heads, width=mixer.head_dim, beside=beside)
    inner = mixer.out_proj.in_features
    states = (mixer.conv2d.out_channels - inner) // 2
    yield Units(name="d_state", kind="state", root=mixer.conv2d, side="out", consumer=None, count=states, first=inner)


def _vssd_attention(attention: Any) -> Iterable[Units]:
    heads = attention.to_out.in_features // attention.head_dim
    yield replace(_inputs("heads", "heads", attention.to_out), count=heads, width=attention.head_dim)


def _attention(attention: Any) -> Iterable[Units]:
    heads = attention.proj.in_features // attention.head_dim
    yield replace(_inputs("heads", "heads", attention.proj), count=heads, width=attention.head_dim)


def _gated_block(block: Any) -> Iterable[Units]:
    """Of MambaOut: hidden channels that the convolution leaves as they are, and those that it convolves, each with its gate.

    All parts are named here, because the graph does not follow channels through this cut and junction.
    """
    hidden, convolved = block.fc2.in_features, block.conv.out_channels
    left = hidden - convolved
    gates, values = Beside(name="fc1", dimension=None), Beside(name="fc1", dimension=None, first=hidden)
    plain = replace(_inputs("hidden", "inner", block.fc2), traced=False)
    yield replace(plain, count=left, beside=(gates, values))
    rows = (replace(gates, first=left), replace(values, first=hidden + left), Beside(name="conv", dimension=None))
    yield replace(plain, name="convolved", count=convolved, first=left, consumed=left, beside=rows)


def _final_pool(network: Any) -> Iterable[Units]:
    if network.pool is not None:
        value, width = network.pool.value, network.pool.value_dim
        count = value.out_features // width
        yield Units(name="pool.heads", kind="heads", root=value, side="out", consumer=network.head, count=count, width=width)


def _conv_block(block: Any) -> Iterable[Units]:
    first = block.conv1 if hasattr(block.conv1, "out_channels") else block.conv1[-1]
    yield _outputs("hidden", "conv", first, block.conv2)


# By the full name of a module's class, so that nothing is imported here.
UNITS: Mapping[str, Callable[[Any], Iterable[Units]]] = {
    "models.vim.BidirectionalMixer": _bidirectional_mixer,
    "models.mambavision.SSMMixer": _mambavision_mixer,
    "models.mambavision.MambaVision": _final_pool,
    "models.vmamba.SS2D": _four_way_mixer,
    "models.vmamba.VMamba": lambda network: [_outputs("patch_embed.hidden", "conv", network.patch_embed[0], network.patch_embed[5])],
    "models.vssd.SSD": _head_mixer,
    "models.vssd.Attention": _vssd_attention,
    "models.vssd.Stem": lambda stem: [
        _outputs("conv2.hidden", "conv", stem.conv2[0].conv, stem.conv2[1].conv),
        _outputs("conv3.hidden", "conv", stem.conv3[0].conv, stem.conv3[1].conv),
    ],
    "models.vssd.Downsample": lambda down: [_outputs("hidden", "conv", down.conv[0].conv, down.conv[2].conv)],
    "models.attention.Attention": _attention,
    "models.attention.SlidingWindowAttention": _attention,
    "models.ssm.s4d.S4D": lambda ssm: [_fixed_states(ssm.log_A_real, ssm)],
    "models.ssm.s5.S5": lambda ssm: [_fixed_states(ssm.Lambda_re, ssm)],
    "models.layers.Mlp": lambda mlp: [_inputs("hidden", "mlp", mlp.fc2)],
    "models.layers.InvertedTokenPath": lambda path: [_inputs("hidden", "conv", path.narrow)],
    "models.layers.SqueezeExcite": lambda se: [_inputs("hidden", "se", se.excite)],
    "models.convolution.MapExcite": lambda se: [_outputs("hidden", "se", se.reduce, se.excite)],
    "models.convolution.ConvBlock": _conv_block,
    "models.convolution.InvertedBlock": lambda block: [_outputs("hidden", "conv", block.branch[0], block.branch[6])],
    "models.convolution.Stem": lambda stem: [_outputs("hidden", "conv", stem.conv_down[0], stem.conv_down[3])],
    "timm.layers.attention.Attention": _attention,
    "timm.models.mambaout.GatedConvBlock": _gated_block,
    "timm.layers.mlp.Mlp": lambda mlp: [_inputs("hidden", "mlp", mlp.fc2)],
}


def _inputs(name: str, kind: str, layer: Any) -> Units:
    """Every input of a linear layer is a unit."""
    return Units(name=name, kind=kind, root=layer, side="in", consumer=layer, count=layer.in_features)


def _outputs(name: str, kind: str, convolution: Any, consumer: Any) -> Units:
    """Every output of a convolution is a unit."""
    return Units(name=name, kind=kind, root=convolution, side="out", consumer=consumer, count=convolution.out_channels)


def _scan_states(name: str, x_proj: Any, A_log: Any, dt_proj: Any) -> Units:
    """States of a scan. Their root is the rows of x_proj that make B; their effect goes through the rows that make C."""
    states, rank = A_log.shape[1], dt_proj.in_features
    return Units(name=name, kind="state", root=x_proj, side="out", consumer=x_proj, count=states, first=rank, axis=0, consumed=rank + states)


def _fixed_states(A: Any, ssm: Any) -> Units:
    """States of a fixed state space. Their root is its state matrix; their effect goes through C."""
    return Units(name="d_state", kind="state", root=A, side="out", consumer=ssm, count=ssm.C.shape[1], weight="C")
