"""The selective scan without a loop over positions, for graphs that leave this package: `torch.export` unrolls a loop, so that the graph of the
reference grows with the length, while this one grows with its logarithm. It holds (B, L, D, N) states at once, so nothing else runs it.
"""

import torch
from torch import Tensor

from models.ssm.s5 import associative_scan
from models.ssm.scan import gated, step_sizes


def scan_by_doubling(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """(y, last state), as `models.ssm.scan.scan_reference` up to rounding. B, C: (B, G, N, L)."""
    wide = torch.promote_types(u.dtype, torch.float32)
    x, step = u.to(wide), step_sizes(delta.to(wide), delta_bias, delta_softplus)
    steps, drives = step.transpose(1, 2).unsqueeze(-1), (step * x).transpose(1, 2).unsqueeze(-1)  # (B, L, D, 1)
    inputs, readouts = (by_channel(part.to(wide), u.shape[1]) for part in (B, C))
    decays, drives = torch.exp(steps * A.to(wide)), drives * inputs
    if reverse:
        decays, drives = decays.flip(1), drives.flip(1)
    states = associative_scan(decays, drives)
    last = states[:, -1]
    if reverse:
        states = states.flip(1)
    y = (states * readouts).sum(-1).transpose(1, 2)
    return gated(y, x, D, z).to(u.dtype), last


def by_channel(part: Tensor, channels: int) -> Tensor:
    """B or C, (B, G, N, L), for each channel: (B, L, 1, N) if one group has them all, else (B, L, D, N)."""
    groups = part.shape[1]
    spread = part if groups == 1 else part.repeat_interleave(channels // groups, dim=1)
    return spread.permute(0, 3, 1, 2)
