"""Weights and inputs that are functions of names and shapes alone, and the logits of the official code under them (golden.json, in which `sources`
names the commits). Two implementations with the same state-dict names can so be compared without any checkpoint."""

import json
import math
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.registry import create_model

GOLDEN: dict[str, Any] = json.loads(Path(__file__).with_name("golden.json").read_text())["models"]
# Golden numbers are kept with 9 digits, which limits the comparison in fp64.
LIMITS = {torch.float32: 2e-5, torch.float64: 5e-9}
NAMES = {torch.float32: "fp32", torch.float64: "fp64"}


def noise(name: str, count: int) -> Tensor:
    """`count` fp64 values in [-1, 1): an integer hash of crc32(name) + index."""
    bits = (torch.arange(count, dtype=torch.int64) + zlib.crc32(name.encode())) & 0xFFFFFFFF
    for shift, factor in ((16, 0x21F0AAAD), (15, 0x735A2D97)):
        bits = ((bits ^ (bits >> shift)) * factor) & 0xFFFFFFFF
    return (bits ^ (bits >> 15)).double() / 2**31 - 1


def weight_for(name: str, shape: tuple[int, ...]) -> Tensor:
    """The fp64 value of a state-dict entry, by its official name and shape."""
    x, (*parents, last) = noise(name, math.prod(shape)), name.split(".")
    if last == "A_log" and len(shape) == 1:  # of VSSD: one rate for each head
        value = 0.5 * x
    elif last in ("A_log", "A_b_log", "A_logs"):
        value = torch.arange(1, shape[1] + 1).double().log().repeat(shape[0]) + 0.05 * x
    elif last in ("D", "D_b", "Ds", "running_var") or (last == "weight" and len(shape) == 1):
        value = 1 + 0.1 * x
    elif last in ("gamma_1", "gamma_2"):
        value = 0.5 + 0.1 * x
    elif last in ("dt_bias", "dt_projs_bias") or (last == "bias" and parents[-1].startswith("dt_proj")):
        value = -2 + 0.3 * x
    elif last in ("x_proj_weight", "dt_projs_weight"):  # of VMamba: (directions, out, in)
        value = x * math.sqrt(3 / shape[-1])
    elif last in ("bias", "running_mean", "pos_embed", "cls_token"):
        value = 0.1 * x
    elif last == "weight":
        value = x * math.sqrt(3 / math.prod(shape[1:]))
    else:
        raise KeyError(name)
    return value.reshape(shape)


@torch.no_grad()
def filled(model: nn.Module) -> nn.Module:
    """The model, every floating-point entry of its state dict set by the rule."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(weight_for(name, tuple(tensor.shape)))
    return model


def golden_images(size: int) -> Tensor:
    """fp32 (2, 3, size, size): sin(0.001 i + 0.3) over the flat index."""
    return torch.sin(0.001 * torch.arange(6 * size**2, dtype=torch.float64) + 0.3).reshape(2, 3, size, size).float()


def distance(got: Tensor, want: Tensor) -> float:
    """Relative L2."""
    return float((got.double() - want.double()).norm() / want.double().norm())


def golden_distance(logits: Tensor, expected: dict[str, Any]) -> float:
    """The largest relative difference over what is kept of the official logits: the first 8 of each sample, and three moments of all."""
    kept = torch.tensor([expected["l0"], expected["l1"]], dtype=torch.float64)
    moments = {"l2": logits.double().norm(), "std": logits.double().std()}
    return max(distance(logits[:, : kept.shape[1]], kept), *(abs(float(value) / expected[key] - 1) for key, value in moments.items()))


def on_meta(name: str, **options: object) -> torch.nn.Module:
    """A model without memory behind it: counting needs none."""
    with torch.device("meta"):
        return create_model(name, **options)
