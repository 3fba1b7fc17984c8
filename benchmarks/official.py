"""The mixers of Vim and MambaVision as the official code composes them around the kernels, to compare with this package's composition.

Sequences are (B, D, L) in memory from the first projection on. Vim (hustvl/Vim, mamba_simple.py, bimamba v2): convolution, projections and scan for
each direction, the second on the flipped sequence and flipped back. MambaVision (NVlabs/MambaVision, mamba_vision.py): torch's convolutions, a scan.
Kernels are arguments: upstream's on a GPU, or the reference in a test of the composition.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.attention import WindowLayout
from models.layers import TokenConv1d
from models.mambavision import SSMMixer
from models.vim import BidirectionalMixer

Scan = Callable[..., Tensor]  # mamba_ssm's selective_scan_fn
Convolution = Callable[..., Tensor]  # causal-conv1d's causal_conv1d_fn


def upstream_kernels() -> tuple[Scan, Convolution]:
    """(selective_scan_fn, causal_conv1d_fn). ImportError names what to install."""
    try:
        from causal_conv1d import causal_conv1d_fn
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except ImportError as error:
        raise ImportError(f"the official composition needs mamba-ssm and causal-conv1d ({error}); run slurm/install_cuda.sh") from error
    return selective_scan_fn, causal_conv1d_fn


def composed_officially(model: nn.Module, scan: Scan, convolve: Convolution) -> nn.Module:
    """The model, with the forward of its mixers replaced. Parameters, names and results stay the same."""
    for module in model.modules():
        if isinstance(module, BidirectionalMixer):
            module.forward = partial(mix_as_vim, module, scan, convolve)  # type: ignore[method-assign]
        elif isinstance(module, SSMMixer):
            module.forward = partial(mix_as_mambavision, module, scan)  # type: ignore[method-assign]
    return model


def mix_as_vim(mixer: BidirectionalMixer, scan: Scan, convolve: Convolution, hidden: Tensor) -> Tensor:
    """(B, L, dim) from (B, L, dim): two passes, the second over the flipped sequence."""
    xz = positions_last(mixer.in_proj.weight @ hidden.flatten(0, 1).t(), len(hidden))
    ahead = _pass(scan, convolve, xz, mixer.conv1d, mixer.x_proj, mixer.dt_proj, mixer.A_log, mixer.D)
    back = _pass(scan, convolve, xz.flip(-1), mixer.conv1d_b, mixer.x_proj_b, mixer.dt_proj_b, mixer.A_b_log, mixer.D_b)
    return F.linear((ahead + back.flip(-1)).transpose(1, 2) / 2, mixer.out_proj.weight)


def _pass(
    scan: Scan, convolve: Convolution, xz: Tensor, conv: TokenConv1d, x_proj: nn.Linear, dt_proj: nn.Linear, A_log: Tensor, D: Tensor
) -> Tensor:
    """y * silu(z), (B, D, L), of a direction, from x and z concatenated, (B, 2 D, L)."""
    x, z = xz.chunk(2, dim=1)
    x = convolve(x, conv.weight.squeeze(1), conv.bias, activation="silu")
    dt, B, C = _projected(x, x_proj, dt_proj, A_log)
    delta = positions_last(dt_proj.weight @ dt.t(), len(x))
    return scan(x, delta, -torch.exp(A_log.float()), B, C, D.float(), z=z, delta_bias=dt_proj.bias.float(), delta_softplus=True)


def mix_as_mambavision(mixer: SSMMixer, scan: Scan, x: Tensor, layout: WindowLayout) -> Tensor:
    """(windows, L, dim) from the same."""
    x, z = mixer.in_proj(x).transpose(1, 2).chunk(2, dim=1)
    x, z = (F.silu(F.conv1d(part, conv.weight, padding="same", groups=part.shape[1])) for part, conv in ((x, mixer.conv1d_x), (z, mixer.conv1d_z)))
    dt, B, C = _projected(x, mixer.x_proj, mixer.dt_proj, mixer.A_log)
    delta = mixer.dt_proj(dt).unflatten(0, (len(x), -1)).transpose(1, 2).contiguous()
    bias = mixer.dt_proj.bias.float()  # added for the second time, as in the official code
    y = scan(x, delta, -torch.exp(mixer.A_log.float()), B, C, mixer.D.float(), delta_bias=bias, delta_softplus=True)
    return mixer.out_proj(torch.cat((y, z), dim=1).transpose(1, 2))


def _projected(x: Tensor, x_proj: nn.Linear, dt_proj: nn.Linear, A_log: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """dt, (B L, rank), and B and C, (B, N, L), of x, (B, D, L)."""
    rows = F.linear(x.transpose(1, 2).flatten(0, 1), x_proj.weight)
    dt, *shared = rows.split([dt_proj.in_features, A_log.shape[1], A_log.shape[1]], dim=-1)
    B, C = (part.unflatten(0, (len(x), -1)).transpose(1, 2).contiguous() for part in shared)
    return dt, B, C


def positions_last(columns: Tensor, batch: int) -> Tensor:
    """(B, D, L), a view with the positions fastest, of (D, B L)."""
    return columns.unflatten(1, (batch, -1)).transpose(0, 1)
