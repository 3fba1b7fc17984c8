"""The groups of parameters. Every parameter falls into one group by its name, and a method names the groups that it prunes. No torch at import.

The names are those of the official files of Vim, MambaVision, VMamba and VSSD; of timm's models the kind of a layer decides. Dense by default: A_log,
D, biases, norms, embeddings and state. A zero in A_log means A = -1, not a removed state.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import cache
from typing import TYPE_CHECKING

from models.pruning.layer_kinds import is_standardised, layer_groups
from models.text import did_you_mean

if TYPE_CHECKING:
    from torch.nn import Module

GROUPS: dict[str, str] = {
    "patch_embed": "convolutions that turn the image into tokens",
    "in_proj": "input projection of a mixer",
    "conv1d": "depthwise convolutions of a mixer, all directions or both halves",
    "x_proj": "projections to B, C and the rank of delta",
    "dt_proj": "projections from that rank to delta",
    "out_proj": "output projection of a mixer",
    "attention": "query, key, value and output projections; attention pooling",
    "mlp": "feed-forward layers",
    "conv": "convolutions of convolutional blocks and of inverted residuals",
    "downsample": "convolutions between the levels of a pyramid",
    "se": "squeeze-and-excitation",
    "head": "the classifier's weight",
    "other": "weights of two or more dimensions that no other group names",
    "A_log": "logarithms of the state matrix's diagonal, all directions",
    "D": "skip weights of the scan, all directions",
    "biases": "every bias",
    "norms": "scales of norms and of layer scale",
    "embeddings": "class token, position embedding, learned queries",
    "state": "bare parameters that no other group names, such as the state matrices of S4 and S5",
}
DENSE_BY_DEFAULT = ("A_log", "D", "biases", "norms", "embeddings", "state")
DEFAULT_GROUPS: tuple[str, ...] = tuple(name for name in GROUPS if name not in DENSE_BY_DEFAULT)

# For weights of layers. The first rule that matches a whole component of the name decides.
LAYERS: tuple[tuple[str, str], ...] = (
    ("patch_embed", r"patch_embed|stem"),
    ("head", r"head"),
    ("se", r"se"),
    ("conv1d", r"conv1d(_\w+)?|conv2d"),
    ("in_proj", r"in_proj"),
    ("x_proj", r"x_proj(_b|_weight|_\d+)?"),
    ("dt_proj", r"dt_proj(_b|s_weight|_\d+)?"),
    ("out_proj", r"out_proj"),
    ("downsample", r"downsample"),
    ("attention", r"attn|attention\w*|pool\w*|qkv|q|k|v|kv|proj|in_proj_weight|to_qkv|to_out"),
    ("mlp", r"mlp|fc\d?"),
    ("conv", r"\w*conv\w*|branch|cpe\d"),
)


@cache
def group_of(name: str, dimensions: int) -> str:
    """The one group of a parameter, by its full name and its number of dimensions."""
    *_, last = parts = name.split(".")
    if last.endswith("bias"):
        return "biases"
    if re.fullmatch(r"A(_b)?_logs?(_\d+)?", last):
        return "A_log"
    if re.fullmatch(r"D(_b|s|_\d+)?", last):
        return "D"
    if re.search(r"token|pos_embed|query|queries", last):
        return "embeddings"
    if dimensions < 2 and (last == "weight" or last.startswith("gamma")):
        return "norms"
    if not last.endswith("weight"):
        return "state"
    return next((group for group, rule in LAYERS if any(re.fullmatch(rule, part) for part in parts)), "other")


def check_groups(groups: Sequence[str]) -> None:
    """Raises ValueError if a group is unknown or given twice, or if none is given. The message has the valid names and the nearest."""
    check_names("groups", "group", groups, GROUPS)


def check_names(knob: str, noun: str, names: Sequence[str], valid: Collection[str]) -> None:
    """Raises ValueError if a name of a knob is unknown or given twice, or if none is given. `noun`: what a name stands for, such as group."""
    choices = f"Valid {knob}: {', '.join(valid)}"
    for name in names:
        if name not in valid:
            raise ValueError(f"unknown {noun} '{name}'{did_you_mean(name, valid) or '.'} {choices}")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"{knob} must name at least one {noun}, each once, got {list(names)}. {choices}")


def parameter_groups(model: Module) -> dict[str, str]:
    """The group of every parameter, in the model's order: by its name; in timm's networks by the kind of its layer, if it is a layer's weight."""
    kinds = layer_groups(model) if hasattr(model, "timm_name") else {}
    return {name: kinds.get(name) or group_of(name, parameter.dim()) for name, parameter in model.named_parameters()}


def prunable_names(model: Module, groups: Sequence[str] = DEFAULT_GROUPS) -> tuple[str, ...]:
    """Names of the parameters in `groups`, in the model's order. ValueError: an unknown group, or a model without a parameter in them."""
    check_groups(groups)
    present = parameter_groups(model)
    names = tuple(name for name, group in present.items() if group in groups)
    if not names:
        raise ValueError(f"the model has no parameter in {', '.join(groups)}; it has {', '.join(sorted(set(present.values())))}")
    return names


def check_zeros(model: Module, names: Collection[str]) -> None:
    """Raises ValueError, with names, if a weight of `names` that is zero would not count as zero in the network: see `is_standardised`."""
    standardised = [f"{name}.weight" for name, layer in model.named_modules() if is_standardised(layer)]
    if within := [name for name in standardised if name in names]:
        groups = parameter_groups(model)
        leave = ", ".join(dict.fromkeys(groups[name] for name in within))
        why = f"{len(within)} convolutions such as '{within[0]}' standardise their weights, so that a zero is none after the mean is subtracted"
        raise ValueError(f"{why}; leave out the groups {leave}")
