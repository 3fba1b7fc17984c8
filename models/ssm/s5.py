"""S5: one state space for all channels, diagonal and complex, run by an associative scan. arXiv 2208.04933.

| paper | here |
|---|---|
| H features, P states kept as P/2 conjugate pairs | channels, d_state |
| Lambda (eigenvalues of HiPPO-N), B~ = V^-1 B, C~ = C V | Lambda_re, Lambda_im, B, C (last dimension: real, imaginary) |
| Delta, one per state; zero-order hold (eq. 6) | log_step, `discrete` |
| x_k = Lambda' x_{k-1} + B' u_k, y_k = 2 Re(C~ x_k) + D u_k | `forward` |
"""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from models.configs import S5Config
from models.ssm.s4d import log_uniform

LARGEST_REAL = -1e-4  # eigenvalues stay in the left half-plane


def hippo_normal(states: int) -> tuple[Tensor, Tensor]:
    """(eigenvalues (N/2,), eigenvectors (N, N/2)) with positive imaginary part, of HiPPO-N, the normal part of HiPPO-LegS: appendix B.1.1."""
    n = torch.arange(states, dtype=torch.float64)
    rank_one, diagonal = torch.sqrt(n + 0.5), torch.sqrt(2 * n + 1)
    legs = -(torch.tril(torch.outer(diagonal, diagonal)) - torch.diag(n))
    normal = legs + torch.outer(rank_one, rank_one)  # -1/2 on the diagonal, skew-symmetric beside it
    imaginary, vectors = torch.linalg.eigh(-1j * normal.to(torch.complex128))
    return torch.complex(torch.full_like(imaginary, -0.5), imaginary)[states // 2 :], vectors[:, states // 2 :]


def associative_scan(rates: Tensor, drives: Tensor) -> Tensor:
    """All states of h[l] = rates[l] h[l-1] + drives[l] along dimension 1, in log2(L) steps (Hillis and Steele). Both (B, L, P)."""
    reach = 1
    while reach < drives.shape[1]:
        after, before = rates[:, reach:], drives[:, :-reach]
        drives = torch.cat((drives[:, :reach], torch.addcmul(drives[:, reach:], after, before)), dim=1)
        rates = torch.cat((rates[:, :reach], after * rates[:, :-reach]), dim=1)
        reach *= 2
    return drives


class S5(nn.Module):
    """A multi-input, multi-output state space over (B, L, H)."""

    no_weight_decay: ClassVar[tuple[str, ...]] = ("Lambda_re", "Lambda_im", "log_step", "D")

    def __init__(self, channels: int, config: S5Config) -> None:
        super().__init__()
        with torch.device("cpu"):  # eigenvectors cannot be computed on a model's meta device
            eigenvalues, vectors = hippo_normal(config.d_state // config.blocks)
            values = eigenvalues.repeat(config.blocks)
            basis: Tensor = torch.block_diag(*[vectors] * config.blocks)  # type: ignore[no-untyped-call]  # torch's own; (P, P/2)
            B = torch.randn(config.d_state, channels, dtype=torch.float64) / math.sqrt(channels)
            C = torch.view_as_complex(torch.randn(channels, config.d_state, 2, dtype=torch.float64)) * math.sqrt(0.5 / config.d_state)
            start = [values.real, values.imag, torch.view_as_real(basis.conj().T @ B.to(basis.dtype)), torch.view_as_real(C @ basis)]
        like = torch.empty(0)
        self.Lambda_re, self.Lambda_im, self.B, self.C = (nn.Parameter(part.float().to(like.device)) for part in start)
        self.D = nn.Parameter(torch.randn(channels))
        self.log_step = nn.Parameter(log_uniform(config.d_state // 2, config.dt_min, config.dt_max))

    def forward(self, u: Tensor, reverse: bool = False) -> Tensor:
        """(B, L, H) from (B, L, H), in u's dtype, computed in fp32 at least; reversed, the sequence runs from its last position."""
        rates, inputs = self.discrete()
        x = (u.flip(1) if reverse else u).to(rates.real.dtype)
        real, imaginary = torch.view_as_real(inputs).unbind(-1)  # real products: half the work of complex ones with a real x
        drives = torch.complex(x @ real.t(), x @ imaginary.t())
        states = torch.view_as_real(associative_scan(rates.expand_as(drives), drives))
        out = self.C.to(x.dtype)
        y = 2 * (states[..., 0] @ out[..., 0].t() - states[..., 1] @ out[..., 1].t()) + x * self.D.to(x.dtype)
        return (y.flip(1) if reverse else y).to(u.dtype)

    def discrete(self) -> tuple[Tensor, Tensor]:
        """(Lambda' (P/2,), B' (P/2, H)), complex."""
        wide = torch.promote_types(self.B.dtype, torch.float32)
        eigenvalues = torch.complex(self.Lambda_re.to(wide).clamp(max=LARGEST_REAL), self.Lambda_im.to(wide))
        rates = torch.exp(eigenvalues * torch.exp(self.log_step.to(wide)))
        return rates, ((rates - 1) / eigenvalues).unsqueeze(-1) * torch.view_as_complex(self.B.to(wide))
