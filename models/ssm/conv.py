"""Causal depthwise convolution with SiLU, the step before a Mamba mixer's scan, under the same backends as the scan."""

import torch.nn.functional as F
from torch import Tensor

from models.ssm.backends import resolve_backend


def causal_conv1d_silu(x: Tensor, weight: Tensor, bias: Tensor | None, *, reverse: bool = False, backend: str = "auto") -> Tensor:
    """silu(conv(x) + bias), (B, D, L) with the strides of x. x: (B, D, L); weight: (D, 1, K) or (D, K); bias: (D,).

    y[l] sums weight[k] * x[l - (K - 1) + k]; reversed, the sequence runs from its last token to its first: x[l + (K - 1) - k].
    Backends as in `models.ssm.scan.selective_scan`.
    """
    resolve_backend(x, backend)
    taps = weight.reshape(x.shape[1], 1, -1).to(x.dtype)
    reach = taps.shape[-1] - 1
    padded, taps = (F.pad(x, (0, reach)), taps.flip(-1)) if reverse else (F.pad(x, (reach, 0)), taps)
    return F.silu(F.conv1d(padded, taps, None if bias is None else bias.to(x.dtype), groups=x.shape[1]))
