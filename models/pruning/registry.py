"""The pruning methods by name. A new method is a file in this folder, a row here and a test. No torch at import."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

from models.plugins.installed import load_installed_row
from models.pruning.base import PruningMethod
from models.pruning.block_removal import BlockRemoval
from models.pruning.chain import Chain
from models.pruning.dense import Dense
from models.pruning.dynamic import Dynamic
from models.pruning.early_bird import EarlyBird
from models.pruning.gradient import Gradient
from models.pruning.iterative_magnitude import IterativeMagnitude
from models.pruning.magnitude import Magnitude
from models.pruning.random_masks import Random
from models.pruning.rigl import RigL
from models.pruning.semi_structured import SemiStructured
from models.pruning.sparsegpt import SparseGPT
from models.pruning.structured import Structured
from models.pruning.token_merging import TokenMerging
from models.pruning.wanda import Wanda
from models.text import did_you_mean

METHODS: dict[str, type[PruningMethod]] = {
    "dense": Dense,
    "random": Random,
    "magnitude": Magnitude,
    "dynamic": Dynamic,
    "iterative_magnitude": IterativeMagnitude,
    "early_bird": EarlyBird,
    "gradient": Gradient,
    "rigl": RigL,
    "wanda": Wanda,
    "semi_structured": SemiStructured,
    "sparsegpt": SparseGPT,
    "structured": Structured,
    "block_removal": BlockRemoval,
    "token_merging": TokenMerging,
}


def create_method(name: str, **knobs: Any) -> PruningMethod:
    """The method with its knobs. ValueError if the name or a knob is unknown, missing or out of range; the message says what is valid."""
    if name not in METHODS:
        problem = f"unknown pruning method '{name}'{did_you_mean(name, METHODS) or '.'} Valid methods: {', '.join(METHODS)}"
        load_installed_row("pruning", name, problem)
    known = {field.name: field for field in fields(METHODS[name])}
    for knob in knobs:
        if knob not in known:
            raise ValueError(f"{name} has no knob '{knob}'{did_you_mean(knob, known) or '.'} Its knobs: {', '.join(known) or 'none'}")
    missing = [knob for knob, field in known.items() if required(field) and knob not in knobs]
    if missing:
        raise ValueError(f"{name} needs {', '.join(missing)}")
    return METHODS[name](**knobs)


def required(field: Any) -> bool:
    """True if a dataclass field has no default."""
    return field.default is MISSING and field.default_factory is MISSING


def method_label(method: PruningMethod) -> str:
    """The name in a leaderboard, such as 'magnitude(0.9, scope=layer)': the sparsity first, then the knobs that differ from their default.

    A chain is named after its methods: 'structured(ratio=0.3) + wanda(0.5)', with the parts of the fine-tuning if they are not equal.
    """
    if isinstance(method, Chain):
        split = f", {':'.join(map(str, method.proportions))}" if method.proportions else ""
        return " + ".join(map(method_label, method.methods)) + split
    sparsity = getattr(method, "sparsity", None)
    shown = [] if sparsity is None else [shown_value(sparsity)]
    for field in fields(method):
        value = getattr(method, field.name)
        if field.name != "sparsity" and (required(field) or value != field.default):
            shown.append(f"{field.name}={shown_value(value)}")
    return f"{method.name}({', '.join(shown)})" if shown else method.name


def shown_value(value: Any) -> str:
    """A knob's value as shown in a label: short numbers, lower-case booleans, names joined by '+'."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return "+".join(map(shown_value, value)) if isinstance(value, tuple) else str(value)
