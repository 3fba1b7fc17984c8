"""Removal within a stage: the units that can go, the gates of a search, the smaller network, and the file that says what is gone.

structure.json, beside model.safetensors:  {"kept": {group: [units that stay]}, "counts": {group: units before}, "notes": [...]}
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from torch import nn

from jobs.experiment.run_folder import STRUCTURE
from jobs.experiment.specs import StageSpec, image_size
from models.pruning.gates import fold_gates
from models.pruning.structure import Group, Structure, find_groups, remove


def parameters(network: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


class Removal:
    """The units that a stage may remove from `network`, and those that it has removed. The whole network gets the gates of the stage's method."""

    def __init__(self, spec: StageSpec, network: nn.Module) -> None:
        """Traces the network if the stage's method removes units."""
        method, self.img_size = spec.stage.method, image_size(spec.data)
        self.groups: tuple[Group, ...] = ()
        self.gates: Mapping[str, str] = {}
        self.done: Structure | None = None
        self.params = parameters(network)
        if method is not None and method.removes_units:
            self.groups = find_groups(network, self.img_size)
            self.gates = method.gate(network, self.groups)

    def apply(self, network: nn.Module, structure: Structure) -> None:
        """Makes a copy of the whole network smaller in place and folds its gates. Raises ValueError if units were removed before."""
        if self.done is not None:
            raise ValueError("units can be removed once, from a whole network; this network is smaller already")
        fold_gates(network)
        remove(network, self.groups or find_groups(network, self.img_size), structure.kept)
        self.groups, self.gates, self.done = (), {}, structure

    def fraction_removed(self, network: nn.Module) -> float:
        """The fraction of the whole network's parameters that is gone; 0 before a removal."""
        return 1 - parameters(network) / self.params if self.done else 0.0


def structure_to_json(structure: Structure | None) -> dict[str, object] | None:
    """A structure as JSON values; None for None."""
    if structure is None:
        return None
    return {**asdict(structure), "kept": {name: list(units) for name, units in structure.kept.items()}, "notes": list(structure.notes)}


def structure_from_json(value: Mapping[str, object] | None) -> Structure | None:
    """A structure from its plain values; None from None."""
    return None if value is None else Structure(kept=value["kept"], counts=value["counts"], notes=tuple(value["notes"]))  # type: ignore[arg-type]


def load_structure(folder: Path) -> Structure | None:
    """The units removed from the saved network in `folder`; None if it is whole."""
    path = folder / STRUCTURE
    return structure_from_json(json.loads(path.read_bytes())) if path.exists() else None
