"""Multiply-adds of a network, counted from shapes. The network is on the meta device, so nothing is computed."""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Costs for one image. Multiply-adds count as one operation; a selective scan counts 9 B L D N FLOPs, the convention of Mamba's authors."""

    parameters: int
    macs: int  # of linear layers, convolutions and matrix products, those of attention included
    scan_flops: int


def costs(model: nn.Module, img_size: int) -> Costs:
    """The costs of `model`, made on the meta device, for an image of `img_size` px, without norms, elementwise operations and FFTs."""
    import models.ssm.conv
    import models.ssm.cpu  # noqa: F401  (both define the operators named below)

    formulas = {torch.ops.vssm.selective_scan: _scan_flops, torch.ops.vssm.conv1d_silu: _conv_flops}
    counter = FlopCounterMode(display=False, custom_mapping=formulas)
    with counter, torch.no_grad():
        model.eval()(torch.empty(1, 3, img_size, img_size, device="meta"))
    scan = sum(flops for operator, flops in counter.get_flop_counts()["Global"].items() if "selective_scan" in str(operator))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Costs(parameters=parameters, macs=(counter.get_total_flops() - scan) // 2, scan_flops=scan)


def _scan_flops(u: Shape, delta: Shape, A: Shape, *rest: object, out_shape: object, **options: object) -> int:
    return 9 * math.prod(u) * A[1]


def _conv_flops(x: Shape, weight: Shape, *rest: object, out_shape: object, **options: object) -> int:
    return 2 * math.prod(x) * weight[-1]
