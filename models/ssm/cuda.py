"""The scan and the causal convolution on NVIDIA GPUs: the compiled kernels of mamba-ssm and causal-conv1d, called as their own wrappers call them
(state-spaces/mamba, mamba_ssm/ops/selective_scan_interface.py). A reversed scan flips its inputs and its output. The kernels use fast math and
atomics, so a run is reproducible to tolerance, not to the bit.
"""

from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

INSTALL = "build it on this machine with slurm/install_cuda.sh, or ask for backend 'reference'"


def scan_cuda(
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
    """(y, last state); shapes as in `scan_reference`. The last state has no gradient. ImportError names what to install."""
    wide = torch.float32
    delta, B, C = (part.to(u.dtype) for part in (delta, B, C))
    A, D, delta_bias = A.to(wide), None if D is None else D.to(wide), None if delta_bias is None else delta_bias.to(wide)
    z = None if z is None else z.to(u.dtype)
    if reverse:
        u, delta, B, C = (part.flip(-1) for part in (u, delta, B, C))
        z = None if z is None else z.flip(-1)
    y, last = CudaScan.apply(u, delta, A, B, C, D, z, delta_bias, delta_softplus)  # type: ignore[no-untyped-call]  # torch's own
    return (y.flip(-1) if reverse else y), last


def causal_conv_cuda(x: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool) -> Tensor:
    """silu(causal convolution), (B, D, L). weight: (D, 1, taps), 2 to 4 taps. ImportError names what to install."""
    try:
        from causal_conv1d import causal_conv1d_fn
    except ImportError as error:
        raise ImportError(f"the CUDA convolution needs causal-conv1d ({error}); {INSTALL}") from error
    x = x.flip(-1) if reverse else x
    x = x if x.stride(2) == 1 else x.contiguous()
    y: Tensor = causal_conv1d_fn(x, weight.squeeze(1).to(x.dtype), None if bias is None else bias.to(x.dtype), activation="silu")
    return y.flip(-1) if reverse else y


class CudaScan(torch.autograd.Function):
    """selective_scan_cuda with its backward."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None, delta_bias: Tensor | None,
                delta_softplus: bool) -> tuple[Tensor, Tensor]:  # fmt: skip
        """(y, last state (B, D, N))."""
        u, delta, B, C = (part if part.stride(-1) == 1 else part.contiguous() for part in (u, delta, B, C))
        z = z if z is None or z.stride(-1) == 1 else z.contiguous()
        A, D, delta_bias = A.contiguous(), None if D is None else D.contiguous(), None if delta_bias is None else delta_bias.contiguous()
        out, states, *gated = _kernel().fwd(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
        ctx.save_for_backward(u, delta, A, B, C, D, z, delta_bias, states, out)
        ctx.delta_softplus = delta_softplus
        last = states[:, :, -1, 1::2]  # of each chunk: the product of decays and the state, interleaved
        ctx.mark_non_differentiable(last)
        return (out if z is None else gated[0]), last

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor, grad_last: Tensor | None) -> tuple[Tensor | None, ...]:
        """The gradients of forward's inputs."""
        u, delta, A, B, C, D, z, delta_bias, states, out = ctx.saved_tensors
        grad_y = grad_y if grad_y.stride(-1) == 1 else grad_y.contiguous()
        du, ddelta, dA, dB, dC, dD, dbias, *dz = _kernel().bwd(
            u, delta, A, B, C, D, z, delta_bias, grad_y, states, None if z is None else out, None, ctx.delta_softplus, False)  # fmt: skip
        return (du, ddelta, dA, dB.to(B.dtype), dC.to(C.dtype), None if D is None else dD, None if z is None else dz[0],
                None if delta_bias is None else dbias, None)  # fmt: skip


def _kernel() -> ModuleType:
    try:
        return import_module("selective_scan_cuda")
    except ImportError as error:
        raise ImportError(f"the CUDA scan needs mamba-ssm's kernel ({error}); {INSTALL}") from error
