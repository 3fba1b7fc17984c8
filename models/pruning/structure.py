"""Removal of units: the entries of parameters that a unit owns, from torch-pruning's dependency graph, and the smaller network.

A removal is described by the units that stay, a plain mapping from group to units: {"layers.0.mixer.d_inner": [0, 2, 5]}. With it any machine makes
the smaller network from the whole network: create_model, then `remove`.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from models.blocks import take_out
from models.convolution import LayerNorm2d
from models.merge_sites import merge_tokens
from models.pruning.surrogates import Axis, Slices, bare_parameters, surrogate
from models.pruning.units import Units, units_of
from models.token_merging import Merging

Kept = Mapping[str, Sequence[int]]


@dataclass(frozen=True, kw_only=True)
class Part:
    """The part of a layer, or of a bare parameter, that a group of units owns."""

    name: str
    side: Literal["out", "in"]  # of a layer; without meaning for a bare parameter
    dimension: int | None  # of a bare parameter; None: a layer
    indices: Tensor  # (units, indices of each) int64


@dataclass(frozen=True, kw_only=True)
class Owned:
    """The part of a parameter that a group of units owns."""

    parameter: str
    dimension: int
    indices: Tensor  # along the dimension; (units, indices of each) int64


@dataclass(frozen=True, kw_only=True)
class Group:
    """Units that can be removed one by one, and all that is removed with them."""

    name: str
    kind: str
    count: int
    parts: tuple[Part, ...]
    owned: tuple[Owned, ...]


@dataclass(frozen=True, kw_only=True)
class Structure:
    """What makes the network that runs from the whole one: the removal of units, then of blocks and state spaces (`models.blocks`), then the
    merging of tokens.
    """

    kept: Kept  # of the groups that lost units
    counts: Mapping[str, int]  # units of every group before the removal
    notes: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()  # that are gone
    scans: tuple[str, ...] = ()  # mixers whose state space is gone
    merging: Merging | None = None

    @property
    def summary(self) -> dict[str, tuple[int, int]]:
        """(units kept, units before), for every group that the method considered; (0 or 1, 1) for every block, and for every state space as
        `<mixer>.scan`; tokens after and before each merge, as `tokens.<block>`.
        """
        gone = {*self.blocks, *(f"{name}.scan" for name in self.scans)}
        units = {name: (0 if name in gone else len(self.kept[name]) if name in self.kept else count, count) for name, count in self.counts.items()}
        return units | {f"tokens.{block}": numbers for block, numbers in (self.merging.tokens if self.merging else {}).items()}


def restructure(model: nn.Module, structure: Structure, img_size: int, groups: Sequence["Group"] = ()) -> None:
    """Makes the whole network `model` in place what a structure says. `groups`: its groups, if they are known. ValueError if it does not fit."""
    if structure.kept:
        remove(model, groups or find_groups(model, img_size), structure.kept)
    if structure.blocks or structure.scans:
        scans = [name for name in structure.scans if not any(name.startswith(f"{block}.") for block in structure.blocks)]
        take_out(model, structure.blocks, scans)
    if structure.merging is not None:
        merge_tokens(model, structure.merging)


def composed(first: Structure, second: Structure) -> Structure:
    """Two structures as one of the whole network. `second` counts the units that `first` has left."""
    kept = {name: [first.kept[name][unit] for unit in units] if name in first.kept else units for name, units in second.kept.items()}
    return Structure(
        kept={**first.kept, **kept},
        counts={**second.counts, **first.counts},
        notes=(*first.notes, *second.notes),
        blocks=(*first.blocks, *second.blocks),
        scans=(*first.scans, *second.scans),
        merging=second.merging or first.merging,
    )


def find_groups(model: nn.Module, img_size: int) -> tuple[Group, ...]:
    """The groups of units of the whole network `model`, in the model's order. The graph is traced on the meta device, so nothing is computed."""
    declared = units_of(model)
    axes: dict[str, Axis] = {units.name: "states" if units.kind == "state" else "channels" for units in declared}
    graphs = {axis: _Graph(model, img_size, axis) for axis in set(axes.values())}
    return tuple(graphs[axes[units.name]].group(units.name) for units in declared)


class _Graph:
    """torch-pruning's dependency graph along one axis (Fang et al., arXiv 2301.12900)."""

    def __init__(self, model: nn.Module, img_size: int, axis: Axis) -> None:
        from torch_pruning import DependencyGraph

        self.twin, states = surrogate(model, axis)
        image = torch.zeros(1, 3, img_size, img_size, device="meta")
        bare = [] if hasattr(model, "timm_name") else list(bare_parameters(self.twin, axis))
        with Slices(), torch.enable_grad():
            self.graph = DependencyGraph().build_dependency(
                self.twin,
                image,
                forward_fn=lambda network, images: [network(images), *states],
                unwrapped_parameters=list(bare),
                customized_pruners=customized(),
                verbose=False,
            )
        self.dimensions = {id(parameter): dimension for parameter, dimension in bare}
        self.names = {id(part): name for name, part in (*self.twin.named_modules(), *self.twin.named_parameters())}
        self.units = {units.name: units for units in units_of(self.twin)}

    def group(self, name: str) -> Group:
        """A group with all that it owns."""
        units = self.units[name]
        parts = (*(self.parts(units) if units.traced else [self.own_part(units)]), *parts_beside(units))
        owned = tuple(parameter for part in parts for parameter in parameters_of(self.twin, part))
        return Group(name=name, kind=units.kind, count=units.count, parts=parts, owned=owned)

    def own_part(self, units: Units) -> Part:
        """The part of the units' root."""
        side: Literal["out", "in"] = "in" if units.side == "in" else "out"
        indices = torch.arange(units.first, units.first + units.count).unsqueeze(1)
        return Part(name=self.names[id(units.root)], side=side, dimension=None, indices=indices)

    def parts(self, units: Units) -> Iterator[Part]:
        """All parts that depend on the units, each part once for each side."""
        remover = self.graph.get_pruner_of_module(units.root)
        function = remover.prune_out_channels if units.side == "out" else remover.prune_in_channels
        for item in self.graph.get_pruning_group(units.root, function, units.indices(range(units.count))):
            target = item.dep.target.module
            if id(target) in self.names:
                side: Literal["out", "in"] = "in" if item.dep.handler.__name__ == "prune_in_channels" else "out"
                indices: list[list[int]] = [[] for _ in range(units.count)]
                for index, root in zip(item.idxs, item.root_idxs, strict=True):
                    indices[(root - units.first) // units.width].append(index)
                yield Part(name=self.names[id(target)], side=side, dimension=self.dimensions.get(id(target)), indices=torch.tensor(indices))


def parts_beside(units: Units) -> Iterator[Part]:
    """The parts that units own besides those of the graph."""
    for part in units.beside:
        yield Part(name=part.name, side="out", dimension=part.dimension, indices=torch.arange(part.first, part.first + units.count).unsqueeze(1))


def customized() -> dict[type, Any]:
    """How torch-pruning cuts layers that it does not know, by class."""
    from torch_pruning.pruner.function import BasePruningFunc

    class Norm(BasePruningFunc):  # type: ignore[misc]  # torch-pruning carries no types
        """Cuts a LayerNorm2d. It counts the removed channels as zeros, so that the removal does not change its means."""

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
        yield Owned(parameter=part.name, dimension=part.dimension, indices=part.indices)
        return
    layer = model.get_submodule(part.name)
    across = part.side == "in" and not one_to_one(layer)
    yield Owned(parameter=f"{part.name}.weight", dimension=int(across), indices=part.indices)
    if not across and getattr(layer, "bias", None) is not None:
        yield Owned(parameter=f"{part.name}.bias", dimension=0, indices=part.indices)


def one_to_one(layer: Any) -> bool:
    """True if each input of the layer reaches only the output of the same index: norms and depthwise convolutions."""
    if hasattr(layer, "groups"):
        return bool(layer.groups == layer.out_channels > 1)
    return not isinstance(layer, nn.Linear)


def check_kept(groups: Sequence[Group], kept: Kept) -> None:
    """Raises ValueError unless `kept` names existing groups, and of each at least one unit, in ascending order."""
    counts = {group.name: group.count for group in groups}
    for name, units in kept.items():
        if name not in counts:
            raise ValueError(f"the network has no units '{name}'; it has {', '.join(counts) or 'none'}")
        if not units or list(units) != sorted(set(units)) or not 0 <= units[0] <= units[-1] < counts[name]:
            valid = f"at least one of units 0 to {counts[name] - 1} must be kept, in order, each once"
            raise ValueError(f"of '{name}' {valid}; got {list(units)}")


@torch.no_grad()
def remove(model: nn.Module, groups: Sequence[Group], kept: Kept) -> None:
    """Makes the whole network `model` smaller in place; `groups` are its groups. ValueError: see `check_kept`."""
    from torch_pruning.ops import module2type
    from torch_pruning.pruner.function import PrunerBox

    check_kept(groups, kept)
    special = customized()
    for (name, side, dimension), indices in dropped_indices(groups, kept).items():
        if dimension is not None:
            owner, _, last = name.rpartition(".")
            parameter = model.get_parameter(name)
            stay = torch.tensor(sorted(set(range(parameter.shape[dimension])) - set(indices)), device=parameter.device)
            setattr(model.get_submodule(owner), last, nn.Parameter(parameter.detach().index_select(dimension, stay)))
            continue
        layer = model.get_submodule(name)
        remover = special.get(type(layer)) or PrunerBox[module2type(layer)]
        (remover.prune_out_channels if side == "out" else remover.prune_in_channels)(layer, indices)
    restate_sizes(model)


def restate_sizes(model: nn.Module) -> None:
    """Corrects the sizes that timm's attention and MambaOut's blocks store besides their layers. The other networks read theirs from the layers."""
    for module in model.modules():
        attention: Any = module
        if type(module).__name__ == "GatedConvBlock":
            hidden, convolved = attention.fc2.in_features, attention.conv.in_channels
            attention.split_indices = (hidden, hidden - convolved, convolved)
        if type(module).__module__ == "timm.layers.attention":
            attention.attn_dim, attention.num_heads = attention.proj.in_features, attention.proj.in_features // attention.head_dim


def dropped_indices(groups: Sequence[Group], kept: Kept) -> dict[tuple[str, str, int | None], list[int]]:
    """The indices that all groups drop, in the whole network, by (layer, side, None) or (bare parameter, side, dimension)."""
    gone: dict[tuple[str, str, int | None], set[int]] = defaultdict(set)
    for group in groups:
        if group.name in kept:
            stays = torch.zeros(group.count, dtype=torch.bool)
            stays[list(kept[group.name])] = True
            for part in group.parts:
                gone[part.name, part.side, part.dimension] |= set(part.indices[~stays].flatten().tolist())
    return {key: sorted(indices) for key, indices in gone.items() if indices}
