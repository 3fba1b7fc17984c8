"""Removing units: which parts of which parameters a unit owns, found by torch-pruning's graph of dependencies, and the smaller network.

What is removed is said by what is kept, a plain mapping from a group of units to the units that stay: {"layers.0.mixer.d_inner": [0, 2, 5]}. With it
the smaller network is made from the whole one on any machine: create_model, then `remove`.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from models.convolution import LayerNorm2d
from models.pruning.surrogates import Axis, Slices, bare_parameters, surrogate
from models.pruning.units import Units, units_of

Kept = Mapping[str, Sequence[int]]


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a group of units owns of one layer or of one bare parameter."""

    name: str
    side: Literal["out", "in"]  # of a layer; of a bare parameter without meaning
    dimension: int | None  # of a bare parameter; None: a layer
    places: Tensor  # (units, places of each) int64


@dataclass(frozen=True, kw_only=True)
class Owned:
    """What a group of units owns of one parameter."""

    parameter: str
    dimension: int
    places: Tensor  # along it, (units, places of each) int64


@dataclass(frozen=True, kw_only=True)
class Group:
    """Units that can be removed one by one, and everything that goes with them."""

    name: str
    kind: str
    count: int
    parts: tuple[Part, ...]
    owned: tuple[Owned, ...]


@dataclass(frozen=True, kw_only=True)
class Structure:
    """What was removed from a network."""

    kept: Kept  # the groups that lost units
    counts: Mapping[str, int]  # units of every group before
    notes: tuple[str, ...] = ()

    @property
    def summary(self) -> dict[str, tuple[int, int]]:
        """Units kept and units before, of every group that was considered."""
        return {name: (len(self.kept[name]) if name in self.kept else count, count) for name, count in self.counts.items()}


def find_groups(model: nn.Module, img_size: int) -> tuple[Group, ...]:
    """The groups of units of the whole network `model`, in its order. Nothing is computed: the graph is traced without memory."""
    declared = units_of(model)
    axes: dict[str, Axis] = {units.name: "states" if units.kind == "state" else "channels" for units in declared}
    graphs = {axis: _Graph(model, img_size, axis) for axis in set(axes.values())}
    return tuple(graphs[axes[units.name]].group(units.name) for units in declared)


class _Graph:
    """torch-pruning's graph of dependencies along one axis (Fang et al., arXiv 2301.12900)."""

    def __init__(self, model: nn.Module, img_size: int, axis: Axis) -> None:
        from torch_pruning import DependencyGraph

        self.twin, states = surrogate(model, axis)
        image = torch.zeros(1, 3, img_size, img_size, device="meta")
        with Slices(), torch.enable_grad():
            self.graph = DependencyGraph().build_dependency(
                self.twin,
                image,
                forward_fn=lambda network, images: [network(images), *states],
                unwrapped_parameters=list(bare_parameters(self.twin, axis)),
                customized_pruners=customized(),
                verbose=False,
            )
        self.dimensions = {id(parameter): dimension for parameter, dimension in bare_parameters(self.twin, axis)}
        self.names = {id(part): name for name, part in (*self.twin.named_modules(), *self.twin.named_parameters())}
        self.units = {units.name: units for units in units_of(self.twin)}

    def group(self, name: str) -> Group:
        """One group with all that it owns."""
        units = self.units[name]
        parts = tuple(self.parts(units))
        owned = tuple(one for part in parts for one in parameters_of(self.twin, part))
        return Group(name=name, kind=units.kind, count=units.count, parts=parts, owned=owned)

    def parts(self, units: Units) -> Iterator[Part]:
        """Everything that depends on the units, each part once for each side."""
        pruner = self.graph.get_pruner_of_module(units.root)
        function = pruner.prune_out_channels if units.side == "out" else pruner.prune_in_channels
        for item in self.graph.get_pruning_group(units.root, function, units.indices(range(units.count))):
            target = item.dep.target.module
            if id(target) in self.names:
                side: Literal["out", "in"] = "in" if item.dep.handler.__name__ == "prune_in_channels" else "out"
                places: list[list[int]] = [[] for _ in range(units.count)]
                for place, root in zip(item.idxs, item.root_idxs, strict=True):
                    places[(root - units.first) // units.width].append(place)
                yield Part(name=self.names[id(target)], side=side, dimension=self.dimensions.get(id(target)), places=torch.tensor(places))


def customized() -> dict[type, Any]:
    """What torch-pruning is told of layers that it does not know."""
    from torch_pruning.pruner.function import BasePruningFunc

    class Norm(BasePruningFunc):
        """A LayerNorm2d goes on counting what it lost as zeros, so that removal changes none of its means."""

        def prune_out_channels(self, layer: Any, idxs: Sequence[int]) -> Any:
            kept = torch.tensor(sorted(set(range(layer.normalized_shape[0])) - set(idxs)), device=layer.weight.device)
            layer.weight, layer.bias = (nn.Parameter(part.detach().index_select(0, kept)) for part in (layer.weight, layer.bias))
            layer.normalized_shape, layer.removed = (len(kept),), layer.removed + len(idxs)
            return layer

        prune_in_channels = prune_out_channels

        def get_out_channels(self, layer: Any) -> int:
            return int(layer.normalized_shape[0])

        get_in_channels = get_out_channels

    return {LayerNorm2d: Norm()}


def parameters_of(model: nn.Module, part: Part) -> Iterator[Owned]:
    """The parameters of a part."""
    if part.dimension is not None:
        yield Owned(parameter=part.name, dimension=part.dimension, places=part.places)
        return
    layer = model.get_submodule(part.name)
    across = part.side == "in" and not one_to_one(layer)
    yield Owned(parameter=f"{part.name}.weight", dimension=int(across), places=part.places)
    if not across and getattr(layer, "bias", None) is not None:
        yield Owned(parameter=f"{part.name}.bias", dimension=0, places=part.places)


def one_to_one(layer: Any) -> bool:
    """Whether an input of the layer goes into the output of the same index alone: norms and depthwise convolutions."""
    if hasattr(layer, "groups"):
        return bool(layer.groups == layer.out_channels > 1)
    return not isinstance(layer, nn.Linear)


def check_kept(groups: Sequence[Group], kept: Kept) -> None:
    """Raises ValueError unless `kept` names groups that are there, and of each at least one unit, in order."""
    counts = {group.name: group.count for group in groups}
    for name, units in kept.items():
        if name not in counts:
            raise ValueError(f"the network has no units '{name}'; it has {', '.join(counts) or 'none'}")
        if not units or list(units) != sorted(set(units)) or not 0 <= units[0] <= units[-1] < counts[name]:
            raise ValueError(f"of '{name}' at least one of units 0 to {counts[name] - 1} must be kept, in order, each once; got {list(units)}")


@torch.no_grad()
def remove(model: nn.Module, groups: Sequence[Group], kept: Kept) -> None:
    """Makes the whole network `model`, whose groups these are, smaller in place. ValueError: see `check_kept`."""
    from torch_pruning.ops import module2type
    from torch_pruning.pruner.function import PrunerBox

    check_kept(groups, kept)
    special = customized()
    for (name, side, dimension), places in dropped_places(groups, kept).items():
        if dimension is not None:
            owner, _, last = name.rpartition(".")
            parameter = model.get_parameter(name)
            stay = torch.tensor(sorted(set(range(parameter.shape[dimension])) - set(places)), device=parameter.device)
            setattr(model.get_submodule(owner), last, nn.Parameter(parameter.detach().index_select(dimension, stay)))
            continue
        layer = model.get_submodule(name)
        pruner = special.get(type(layer)) or PrunerBox[module2type(layer)]
        (pruner.prune_out_channels if side == "out" else pruner.prune_in_channels)(layer, places)
    restate_sizes(model)


def restate_sizes(model: nn.Module) -> None:
    """Sets the sizes that timm's attention keeps beside its layers; the other networks read theirs from the layers."""
    for module in model.modules():
        attention: Any = module
        if type(module).__module__ == "timm.layers.attention":
            attention.attn_dim, attention.num_heads = attention.proj.in_features, attention.proj.in_features // attention.head_dim


def dropped_places(groups: Sequence[Group], kept: Kept) -> dict[tuple[str, str, int | None], list[int]]:
    """What goes, by layer and side or bare parameter and dimension, over all groups: indices are those of the whole network."""
    gone: dict[tuple[str, str, int | None], set[int]] = defaultdict(set)
    for group in groups:
        if group.name in kept:
            stays = torch.zeros(group.count, dtype=torch.bool)
            stays[list(kept[group.name])] = True
            for part in group.parts:
                gone[part.name, part.side, part.dimension] |= set(part.places[~stays].flatten().tolist())
    return {key: sorted(places) for key, places in gone.items() if places}
