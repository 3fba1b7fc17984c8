"""Layers that several networks share, and the split of parameters by weight decay.

Sequences are (B, L, D) in memory throughout: batch, tokens, channels. A scan gets a transposed view, without a copy.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.ssm.conv import conv1d_silu


class RMSNorm(nn.RMSNorm):
    """x / rms(x) * weight over the last dimension, computed in at least fp32, returned in the dtype asked for. arXiv 1910.07467."""

    def forward(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """(..., D) in `dtype`, by default x's own."""
        wide = torch.promote_types(x.dtype, torch.float32)
        return F.rms_norm(x.to(wide), self.normalized_shape, self.weight.to(wide), self.eps).to(dtype or x.dtype)


class DropPath(nn.Module):
    """Stochastic depth (arXiv 1603.09382): in training a sample's branch is dropped with probability `rate`, or else scaled by 1 / (1 - rate)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """x's shape; dimension 0 is the sample."""
        if not self.training or self.rate == 0.0:
            return x
        keep = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(1.0 - self.rate)
        return x * keep / (1.0 - self.rate)


class SqueezeExcite(nn.Module):
    """x times a gate for each channel, computed from the mean over tokens: fc D/ratio, ReLU, fc D, sigmoid. arXiv 1709.01507, section 3."""

    def __init__(self, dim: int, ratio: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(dim, max(1, dim // ratio))
        self.excite = nn.Linear(max(1, dim // ratio), dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) from (B, L, D)."""
        gate: Tensor = self.excite(F.relu(self.reduce(x.mean(dim=1)))).sigmoid()
        return x * gate.unsqueeze(1)


class TokenLinear(nn.Linear):
    """A linear layer over tokens whose result may lie in memory with positions beside each other, as mamba-ssm's kernels read it. No bias."""

    def forward(self, x: Tensor, positions_last: bool = False) -> Tensor:
        """(B, L, out) from (B, L, in); in memory (out, B, L) if `positions_last`."""
        if not positions_last:
            return F.linear(x, self.weight)
        y = self.weight @ x.flatten(0, 1).t()
        return y.view(-1, *x.shape[:2]).permute(1, 2, 0)


class DeltaProjection(TokenLinear):
    """dt_proj of Mamba, (B, L, D) from (B, L, dt_rank). It leaves its bias to the scan, which adds it in fp32 (delta_bias), before the softplus."""

    bias: nn.Parameter
    keeps_timescale = False  # True: every pass leaves the mean of Delta over channels, by which `models.token_merging` may choose tokens
    timescale: Tensor | None = None

    def forward(self, x: Tensor, positions_last: bool = False) -> Tensor:
        """(B, L, D) from (B, L, dt_rank); in memory (D, B, L) if `positions_last`."""
        delta = super().forward(x, positions_last)
        if self.keeps_timescale:
            wide = torch.promote_types(x.dtype, torch.float32)
            self.timescale = F.softplus(delta.detach().to(wide) + self.bias.detach().to(wide)).mean(2)
        return delta

    def taken_timescale(self) -> Tensor | None:
        """(B, L), the timescale of the last pass, once; None if none is kept."""
        timescale, self.timescale = self.timescale, None
        return timescale


class TokenConv1d(nn.Conv1d):
    """SiLU of a depthwise convolution over tokens. A causal convolution sees a token and the taps - 1 tokens before it (after it, if reversed);
    otherwise the taps are centred.

    Weight (D, 1, taps), as in the official files.
    """

    def __init__(self, channels: int, taps: int, *, causal: bool, bias: bool, backend: str) -> None:
        super().__init__(channels, channels, taps, groups=channels, bias=bias)
        self.left, self.backend = taps - 1 if causal else (taps - 1) // 2, backend

    def forward(self, x: Tensor, reverse: bool = False) -> Tensor:
        """(B, L, D) from (B, L, D)."""
        y = conv1d_silu(x.transpose(1, 2), self.weight, self.bias, left=self.left, reverse=reverse, backend=self.backend)
        return y.transpose(1, 2)


class InvertedTokenPath(nn.Module):
    """SiLU of x + an inverted residual over tokens: 1x1 to expand * D, depthwise causal convolution, linear 1x1 back. arXiv 1801.04381."""

    def __init__(self, channels: int, expand: int, taps: int, backend: str) -> None:
        super().__init__()
        self.widen = nn.Linear(channels, expand * channels, bias=False)
        self.conv = TokenConv1d(expand * channels, taps, causal=True, bias=True, backend=backend)
        self.narrow = nn.Linear(expand * channels, channels, bias=False)

    def forward(self, x: Tensor, reverse: bool = False) -> Tensor:
        """(B, L, D) from (B, L, D)."""
        return F.silu(x + self.narrow(self.conv(F.hardtanh(self.widen(x), 0.0, 6.0), reverse=reverse)))


class Mlp(nn.Module):
    """fc2(GELU(fc1(x))), the exact GELU."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        if hidden < 1:
            raise ValueError(f"mlp_ratio leaves no hidden unit for {dim} channels: raise it")
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) from (..., dim)."""
        y: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return y


def weight_decay_groups(model: nn.Module, decay_ssm: bool) -> tuple[list[str], list[str]]:
    """(names with weight decay, names without), each in the model's order.

    No decay: vectors (biases, norms, D, layer scales), the names in a module's `no_weight_decay` (our modules have a tuple, timm's a method), and,
    unless `decay_ssm`, those in its `ssm_parameters`. timm's rule is the same, except that it never reads Mamba's marks. The official runs therefore
    decay A_log, but not D, a vector.
    """
    exempt = no_weight_decay_names(model, decay_ssm)
    names = [name for name, _ in model.named_parameters()]
    return [name for name in names if name not in exempt], [name for name in names if name in exempt]


def no_weight_decay_names(model: nn.Module, decay_ssm: bool = False) -> set[str]:
    """Names of the parameters without weight decay; see `weight_decay_groups`."""
    exempt = {name for name, parameter in model.named_parameters() if parameter.ndim <= 1 or name.endswith(".bias")}
    for prefix, module in model.named_modules():
        named = getattr(module, "no_weight_decay", ())
        marked = [*(named() if callable(named) else named), *(() if decay_ssm else getattr(module, "ssm_parameters", ()))]  # timm's is a method
        exempt |= {f"{prefix}.{name}" if prefix else name for name in marked}
    return exempt & {name for name, _ in model.named_parameters()}
