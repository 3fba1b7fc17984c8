"""The units of timm's networks, as torch-pruning's dependency graph shows them: channels of convolutions, and hidden units of linear layers.

A unit is a channel that layers write and others read, if its removal is exact: the smaller network computes what the whole network does with the
unit's weights at zero. So these are none: channels of the residual stream, and others that meet in a sum; those under a norm over channels, or in a
grouped convolution; those that attention, a parameter outside of layers, or an operation that mixes channels reads. Heads of timm's plain attention
have a row in `models.pruning.units`.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from models.meta_twin import meta_twin
from models.pruning.layer_kinds import is_standardised, layer_groups
from models.pruning.structure import one_to_one
from models.pruning.surrogates import Slices

# Operations that treat each channel by itself, as autograd's graph names them.
BY_CHANNEL = frozenset(
    "relu gelu silu hardswish hardsigmoid hardtanh sigmoid tanh leakyrelu elu softplus clamp clampmin mul div pow exp neg sqrt maxpool2dwithindices "
    "avgpool2d mkldnnadaptiveavgpool2d adaptiveavgpool2d permute transpose clone nativebatchnorm cudnnbatchnorm constantpadnd squeeze unsqueeze t "
    "upsamplenearest2d upsamplebilinear2d select tocopy alias".split()
)
PRODUCTS = ("mm", "addmm")  # within a linear layer
SUMS = ("add", "sub")
KINDS = {"conv": "conv", "downsample": "conv", "patch_embed": "conv", "mlp": "mlp", "head": "mlp", "se": "se"}  # of units, by the layer's group


@dataclass(frozen=True, kw_only=True)
class GraphUnits:
    """A group of units by the names of layers."""

    root: str
    side: str  # of the root, "out" or "in"
    kind: str
    count: int
    consumer: str | None  # the layer that reads the units, if there is one alone
    scaled: bool  # a BatchNorm has a scale for each unit

    @property
    def name(self) -> str:
        """The group's name: blocks.0.mlp.fc1.out."""
        return f"{self.root}.{self.side}"


@dataclass(frozen=True, kw_only=True)
class GraphFindings:
    """The units of a network, and for each reason how many layers write channels that are none."""

    units: tuple[GraphUnits, ...]
    why_none: dict[str, int]


class Shapes(Slices):
    """A mode that also remembers the shape of every result by its node of autograd's graph, and which results are cut to sizes that are stored."""

    def __init__(self) -> None:
        super().__init__()
        self.of: dict[Any, torch.Size] = {}
        self.stored: set[Any] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The result of `func`."""
        result = super().__torch_function__(func, types, args, kwargs)
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor) and tensor.grad_fn is not None:
                self.of[tensor.grad_fn] = tensor.shape
                if func in (torch.split, Tensor.split):
                    self.stored.add(tensor.grad_fn)
        return result


def graph_units(network: nn.Module) -> GraphFindings:
    """The units of one of timm's networks; they are found once and remembered with it. ValueError: a network that cannot be traced."""
    known: GraphFindings | None = network.__dict__.get("timm_units")
    if known is None:
        try:
            known = _Tracing(network).findings()
        except Exception as error:  # torch-pruning does not know every operation
            raise ValueError(f"torch-pruning cannot follow the channels of {network.timm_name}: {type(error).__name__}: {error}") from error
        network.timm_units = known  # type: ignore[assignment]
    return known


class _Tracing:
    """A network's dependency graph, and what its groups of channels go through."""

    def __init__(self, network: Any) -> None:
        from torch_pruning import DependencyGraph
        from torch_pruning.dependency.index_mapping import update_index_mapping

        self.twin = meta_twin(network)
        self.shapes, size = Shapes(), network.timm_img_size
        with self.shapes, torch.enable_grad():
            self.graph = DependencyGraph().build_dependency(self.twin, torch.zeros(1, 3, size, size, device="meta"), verbose=False)
        update_index_mapping(self.graph)
        self.names = {id(module): name for name, module in self.twin.named_modules()}
        self.groups = {name.removesuffix(".weight"): group for name, group in layer_groups(self.twin).items()}
        self.seen: set[str] = set()

    def findings(self) -> GraphFindings:
        """The units in the network's order, and the reasons of channels that are none."""
        units, reasons = [], Counter[str]()
        for name in self.groups:
            layer = self.twin.get_submodule(name)
            if name in self.seen or layer not in self.graph.module2node or one_to_one(layer):
                continue
            group: Any = list(self.at_their_index(layer))
            if not any(map(self.fault, group)):
                group = self.group(layer, "out")
            writers, readers = (self.layers(group, side) for side in ("out", "in"))
            self.seen.update(writers)
            reason = next((reason for item in group if (reason := self.fault(item))), None)
            taken = self.units(name, readers) if reason is None else None
            if taken is None:
                reasons[reason or "channels that are read in part"] += len(writers)
            else:
                units.append(taken)
        return GraphFindings(units=tuple(units), why_none=dict(reasons))

    def at_their_index(self, layer: Any) -> Iterator[SimpleNamespace]:
        """The parts that depend on the outputs of a layer with every channel at the index that it has there.

        Most channels that are no units show it here. Their whole group may be out of reach: each change of shape, such as a cut into windows, makes
        several indices of each channel, again and again.
        """
        waiting = [(self.graph.module2node[layer], self.graph.get_pruner_of_module(layer).prune_out_channels)]
        seen = set(waiting)
        yield part_of(*waiting[0])
        while waiting:
            node, handler = waiting.pop()
            for after in node.dependencies:
                key = (after.target, after.handler)
                if key not in seen and after.is_triggered_by(handler) and not any(after.index_mapping):
                    seen.add(key)
                    waiting.append(key)
                    yield part_of(*key)

    def group(self, layer: Any, side: str) -> Any:
        """All that depends on one side of a layer."""
        remover = self.graph.get_pruner_of_module(layer)
        count = remover.get_out_channels(layer) if side == "out" else remover.get_in_channels(layer)
        return self.graph.get_pruning_group(layer, remover.prune_out_channels if side == "out" else remover.prune_in_channels, list(range(count)))

    def layers(self, group: Any, side: str) -> list[str]:
        """The layers that write a group's channels, "out", or read them, "in", each once."""
        return list(dict.fromkeys(self.names[id(item.dep.target.module)] for item in group if is_side(item, side)))

    def units(self, name: str, readers: list[str]) -> GraphUnits | None:
        """The units that the layer `name` writes: with its outputs as root, or else with the inputs of a layer that reads them."""
        kind = KINDS[self.groups[name]]
        for root, side in [(name, "out"), *((reader, "in") for reader in readers)]:
            layer = self.twin.get_submodule(root)
            items = self.group(layer, side)
            count = layer.weight.shape[0 if side == "out" else 1]
            if all(well_formed(item, count) for item in items) and count > 1:
                only = readers[0] if len(readers) == 1 else None
                whole = only is not None and self.twin.get_submodule(only).weight.shape[1] == count
                norms = [item.dep.target.module for item in items if isinstance(item.dep.target.module, nn.BatchNorm2d | nn.BatchNorm1d)]
                scaled = any(norm.affine and norm.num_features == count for norm in norms)
                return GraphUnits(root=root, side=side, kind=kind, count=count, consumer=only if whole else None, scaled=scaled)
        return None

    def fault(self, item: Any) -> str | None:
        """Why channels that are a part of the graph are no units; None if they can be."""
        module = item.dep.target.module
        if isinstance(module, nn.Parameter):
            return "a parameter outside of layers"
        if type(module).__name__ == "_OutputOp" or (is_side(item, "out") and self.groups.get(self.names[id(module)]) == "head"):
            return "the logits"
        return self.fault_of_layer(module) if id(module) in self.names else self.fault_of_operation(item.dep.target)

    def fault_of_operation(self, node: Any) -> str | None:
        """Why channels that pass an operation are no units."""
        kind = type(node.module).__name__
        operation = re.sub(r"Backward\d*$", "", str(node.grad_fn.name() if hasattr(node.grad_fn, "name") else "")).lower()
        if operation in SUMS:
            return "a sum, such as the residual stream" if len(node.inputs) > 1 else None
        if kind == "_ReshapeOp":
            return None if keeps_channels(node.grad_fn, self.shapes) else "a change of shape"
        if node.grad_fn in self.shapes.stored:
            return "a cut to stored sizes"
        if kind in ("_ConcatOp", "_SliceOp"):
            return None if along_channels(node.grad_fn, self.shapes) else "a cut or a junction that is not of channels"
        if operation in PRODUCTS and any(isinstance(reader.module, nn.Linear) for reader in node.outputs):
            return None
        if operation == "mean":
            return None if over_positions(node.grad_fn) else "a mean over channels"
        return None if operation in BY_CHANNEL else f"the operation {operation}"

    def fault_of_layer(self, layer: Any) -> str | None:
        """Why the channels of a layer are no units."""
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            return None
        if not isinstance(layer, nn.Linear | nn.Conv2d):
            return f"a {type(layer).__name__}"
        if getattr(layer, "groups", 1) > 1 and not one_to_one(layer):
            return "a grouped convolution"
        if is_standardised(layer):
            return "a standardised convolution"
        return "attention" if self.groups.get(self.names[id(layer)]) == "attention" else None


def part_of(node: Any, handler: Any) -> SimpleNamespace:
    """A part of a group as torch-pruning's groups have it, as far as it is read here."""
    return SimpleNamespace(dep=SimpleNamespace(target=node, handler=handler))


def is_side(item: Any, side: str) -> bool:
    """True if a part of a group is this side of a linear layer or of a convolution that is not depthwise."""
    layer = item.dep.target.module
    inputs = item.dep.handler.__name__ == "prune_in_channels"
    return isinstance(layer, nn.Linear | nn.Conv2d) and not one_to_one(layer) and inputs == (side == "in")


def well_formed(item: Any, count: int) -> bool:
    """True if each of the group's units takes as many indices of this part as any other, and no two units the same index."""
    taken = Counter(item.root_idxs)
    return set(taken) == set(range(count)) and len(set(taken.values())) == 1 and len(set(item.idxs)) == len(item.idxs)


def keeps_channels(node: Any, shapes: Shapes) -> bool:
    """True for a change of shape that merges or adds positions beside the channels, or merges them into the channels as the last dimension."""
    before, after = tuple(node._saved_self_sym_sizes), tuple(shapes.of.get(node, ()))
    if not after or before[-1] == after[-1]:  # within a linear layer; or tokens
        return True
    maps = len(before) == 4 and before[:2] == after[:2]  # (B, C, H, W) to (B, C, HW)
    vector = before[:2] == after[:2] and set(before[2:] + after[2:]) <= {1}  # (B, C) to (B, C, 1, 1), and back
    return maps or vector or (len(before) == 4 and len(after) == 2)  # (B, C, H, W) to (B, CHW)


def along_channels(node: Any, shapes: Shapes) -> bool:
    """True for a cut or a junction of channels: dimension 1 of a map or a vector, or the last dimension."""
    ranks = shapes.of.get(node)
    dim = signed(node._saved_dim)
    return ranks is not None and dim % len(ranks) in ((1, len(ranks) - 1) if len(ranks) in (2, 4) else (len(ranks) - 1,))


def over_positions(node: Any) -> bool:
    """True for a mean over the positions of a map or over tokens."""
    rank = len(node._saved_self_sym_sizes)
    dims = {signed(dim) % rank for dim in node._saved_dim or ()}
    return dims <= {2, 3} and rank == 4 or dims == {1, 2} and rank == 4 or dims == {1} and rank == 3


def signed(dim: int) -> int:
    """A dimension as autograd saves it, negative again."""
    return dim - 2**64 if dim >= 2**63 else dim
