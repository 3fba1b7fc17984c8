"""Removal within a stage: the units that can go, the gates of a search, the smaller network, and the file that says what is gone.

`models.pruning.structure_json` says what is in structure.json, beside model.safetensors.
"""

import copy
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from jobs.experiment.run_folder import STRUCTURE
from jobs.experiment.specs import StageSpec, image_size
from models.pruning.gates import fold_gates
from models.pruning.structure import Group, Structure, composed, find_groups, restructure
from models.pruning.structure_json import structure_from_json


def parameters(network: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


class Removal:
    """The units that a stage may remove from `network`, and those that are gone. The whole network gets the gates of the stage's method."""

    def __init__(self, spec: StageSpec, network: nn.Module) -> None:
        """Traces the network if the stage's method removes units."""
        method, self.img_size = spec.stage.method, image_size(spec.data)
        self.groups: tuple[Group, ...] = ()
        self.gates: Mapping[str, str] = {}
        self.done: Structure | None = None  # all that is gone from the whole network, by the stages before this one too
        self.finished = False  # the stage's own method has removed its units
        self.params = parameters(network)
        if method is not None and method.removes_units:
            self.groups = find_groups(network, self.img_size)
            self.gates = method.gate(network, self.groups)

    def inherit(self, network: nn.Module, structure: Structure, *, finished: bool) -> None:
        """Makes a copy of the whole network what `structure` says. `finished`: the stage's own method has taken part in it."""
        fold_gates(network)
        restructure(network, structure, self.img_size, self.groups)
        acts = bool(self.groups) and not finished
        self.groups, self.gates = find_groups(network, self.img_size) if acts else (), {}
        self.done, self.finished = structure, finished

    def apply(self, network: nn.Module, structure: Structure) -> None:
        """Removes units of `groups` from a copy of the network in place, or merges its tokens, and folds its gates. ValueError the second time."""
        self.check_unfinished()
        fold_gates(network)
        restructure(network, structure, self.img_size, self.groups)
        self.groups, self.gates, self.finished = (), {}, True
        self.done = structure if self.done is None else composed(self.done, structure)

    def check_unfinished(self) -> None:
        """Raises ValueError if the stage's method has removed its units."""
        if self.finished:
            raise ValueError("a method removes units once in a stage; this network is smaller already")

    def cut(self, network: nn.Module, structure: Structure, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The masks of a network without the units that `structure` removes from it; `network` itself is not changed."""
        self.check_unfinished()
        if not masks or not (structure.kept or structure.blocks or structure.scans):
            return dict(masks)
        twin = copy.deepcopy(network)
        with torch.no_grad():
            for name, mask in masks.items():
                twin.get_parameter(name).copy_(mask)
        restructure(twin, structure, self.img_size, self.groups)
        smaller = dict(twin.named_parameters())
        return {name: smaller[name].detach() != 0 for name in masks if name in smaller}

    def fraction_removed(self, network: nn.Module, masked: int = 0) -> float:
        """The fraction of the whole network's parameters that is gone, with those that masks drop; 0 before a removal."""
        return 1 - (parameters(network) - masked) / self.params if self.done else 0.0


def load_structure(folder: Path) -> Structure | None:
    """The units removed from the saved network in `folder`; None if it is whole."""
    path = folder / STRUCTURE
    return structure_from_json(json.loads(path.read_bytes())) if path.exists() else None
