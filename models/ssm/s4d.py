"""S4D: a diagonal state-space layer run as one long convolution by FFT. arXiv 2206.11893, with its initialisations.

| paper | here |
|---|---|
| H features, N/2 conjugate pairs of states | channels, d_state / 2 |
| A = -exp(log_A_real) + i A_imag, B = 1, C, D, Delta | parameters of the same names |
| zero-order hold: A' = exp(Delta A), B' = (A' - 1) / A | `discrete` |
| K[l] = 2 Re sum_n C_n B'_n A'_n^l (eq. 9 and section 3.3) | `kernel` |
"""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from models.configs import S4Config


def initial_states(init: str, count: int) -> Tensor:
    """A of `count` conjugate pairs, complex128: S4D-Lin -1/2 + i pi n, S4D-Inv -1/2 + i (N / pi) (N / (2n + 1) - 1). Section 4."""
    n, states = torch.arange(count, dtype=torch.float64), 2 * count
    imaginary = math.pi * n if init == "lin" else states / math.pi * (states / (2 * n + 1) - 1)
    return torch.complex(torch.full_like(n, -0.5), imaginary)


def log_uniform(count: int, low: float, high: float) -> Tensor:
    """Logarithms of values that are uniform in logarithm between `low` and `high`."""
    return torch.rand(count) * math.log(high / low) + math.log(low)


class S4D(nn.Module):
    """y = K * u + D u for each channel; K is the kernel of a diagonal state space with `d_state` states."""

    no_weight_decay: ClassVar[tuple[str, ...]] = ("log_dt", "log_A_real", "A_imag", "D")

    def __init__(self, channels: int, config: S4Config) -> None:
        super().__init__()
        pairs = max(1, config.d_state // 2)
        states = initial_states(config.init, pairs)
        self.log_dt = nn.Parameter(log_uniform(channels, config.dt_min, config.dt_max))
        self.log_A_real = nn.Parameter(torch.log(-states.real).float().repeat(channels, 1))
        self.A_imag = nn.Parameter(states.imag.float().repeat(channels, 1))
        self.C = nn.Parameter(torch.randn(channels, pairs, 2) * math.sqrt(0.5))
        self.D = nn.Parameter(torch.randn(channels))

    def forward(self, u: Tensor, reverse: bool = False) -> Tensor:
        """(B, L, H) from (B, L, H), in u's dtype, computed in fp32 at least; reversed, the sequence runs from its last position."""
        x = (u.flip(1) if reverse else u).transpose(1, 2).to(self._wide(u))
        length = x.shape[-1]
        spectrum = torch.fft.rfft(self.kernel(length).to(x.dtype), n=2 * length)  # twice the length, so that nothing wraps around
        y: Tensor = torch.fft.irfft(torch.fft.rfft(x, n=2 * length) * spectrum, n=2 * length)[..., :length]
        y = (y + x * self.D.to(x.dtype).unsqueeze(-1)).transpose(1, 2).to(u.dtype)
        return y.flip(1) if reverse else y

    def kernel(self, length: int) -> Tensor:
        """K, (H, length)."""
        rate, weight = self.discrete()
        powers = torch.exp(rate.unsqueeze(-1) * torch.arange(length, device=rate.device))
        kernel: Tensor = 2 * (weight.unsqueeze(1) @ powers).squeeze(1).real
        return kernel

    def discrete(self) -> tuple[Tensor, Tensor]:
        """(Delta A, C B'), both (H, N/2), complex."""
        wide = self._wide(self.C)
        A = torch.complex(-torch.exp(self.log_A_real.to(wide)), self.A_imag.to(wide))
        rate = A * torch.exp(self.log_dt.to(wide)).unsqueeze(-1)
        return rate, torch.view_as_complex(self.C.to(wide)) * (torch.exp(rate) - 1) / A

    @staticmethod
    def _wide(x: Tensor) -> torch.dtype:
        return torch.promote_types(x.dtype, torch.float32)
