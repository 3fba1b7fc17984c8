"""The groups of the parameters of timm's networks, by the kind of the layer that holds them: timm's families do not share their names."""

from __future__ import annotations

import re
from typing import Any

ATTENTION = re.compile(r"attention|attn", re.IGNORECASE)  # in the name of a class
EXCITATION = re.compile(r"^(SE|SqueezeExcite|EffectiveSE|GatherExcite|GlobalContext|Cbam|Eca|CecaM)")
STEM, DOWNSAMPLE = re.compile(r"patch_embed|stem"), re.compile(r"downsample\w*")  # a whole part of a parameter's name


def layer_groups(network: Any) -> dict[str, str]:
    """The group of every weight of a linear layer or a convolution of one of timm's networks, by the weight's name."""
    from torch import nn

    modules = dict(network.named_modules())
    kinds: dict[str, str] = {}
    for name, layer in modules.items():
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d) and "weight" in layer._parameters:
            parts = name.split(".")
            owners = [type(modules[".".join(parts[:depth])]).__name__ for depth in range(1, len(parts))]
            kinds[f"{name}.weight"] = group_of_layer(name, layer, owners, network)
    return kinds


def group_of_layer(name: str, layer: Any, owners: list[str], network: Any) -> str:
    """The group of a layer's weight. `owners`: the classes of the modules around it, the outermost first."""
    if name in listed(network, "classifier"):
        return "head"
    if name in listed(network, "first_conv") or any(STEM.fullmatch(part) for part in name.split(".")):
        return "patch_embed"
    if any(map(EXCITATION.match, owners)):
        return "se"
    if any(DOWNSAMPLE.fullmatch(part) for part in name.split(".")):
        return "downsample"
    inner = next((owner for owner in reversed(owners) if ATTENTION.search(owner) or "Mlp" in owner), "")
    if ATTENTION.search(inner):  # MaxViT's blocks of attention have feed-forward layers in them
        return "attention"
    wide = hasattr(layer, "kernel_size") and set(layer.kernel_size) != {1}
    return "conv" if wide or not any("Mlp" in owner for owner in owners) and hasattr(layer, "kernel_size") else "mlp"


def is_standardised(layer: Any) -> bool:
    """True for a convolution that subtracts the mean of its weights and divides by their deviation: a weight that is zero has an effect there."""
    return "StdConv" in type(layer).__name__


def listed(network: Any, key: str) -> tuple[str, ...]:
    """The layers that timm names as a network's classifier or first convolution."""
    names = network.pretrained_cfg.get(key) or ()
    return (names,) if isinstance(names, str) else tuple(names)
