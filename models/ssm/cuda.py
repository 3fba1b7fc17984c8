"""The scan and the causal convolution on NVIDIA GPUs: the compiled kernels of mamba-ssm and causal-conv1d, called as their own wrappers call them
(state-spaces/mamba, mamba_ssm/ops/selective_scan_interface.py), as the operator `vssm::selective_scan_cuda`. A reversed scan flips its inputs and its
output. The kernels use fast math and atomics, so a run is reproducible to tolerance, not to the bit.
"""

from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
CHUNK = 2048  # positions between two kept states of mamba-ssm's kernel
INSTALL = "build it on this machine with slurm/install_cuda.sh, or ask for backend 'triton' or 'reference'"


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
    """(y, last state); shapes as in `scan_reference`. The last state has no gradient. ValueError: a dtype that the kernel does not have. ImportError
    names what to install.
    """
    if u.dtype not in DTYPES:
        raise ValueError(f"the CUDA scan takes fp32, bf16 and fp16, not {u.dtype}; ask for backend 'triton' or 'reference'")
    wide = torch.float32
    A, D, delta_bias = A.to(wide).contiguous(), _contiguous(D, wide), _contiguous(delta_bias, wide)
    u, delta, B, C = (_sequence(part, u.dtype, reverse) for part in (u, delta, B, C))
    z = None if z is None else _sequence(z, u.dtype, reverse)
    y, last, _, _ = _scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    return (y.flip(-1) if reverse else y), last.detach()


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


@torch.library.custom_op("vssm::selective_scan_cuda", mutates_args=())
def _scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None, delta_bias: Tensor | None,
          delta_softplus: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """(y, last state, states at the ends of chunks, y before the gate). The last is empty without z: then nothing needs it."""
    out, states, *gated = _kernel().fwd(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    last = states[:, :, -1, 1::2].contiguous()  # of each chunk: the product of decays and the state, interleaved
    return (out, last, states, out.new_empty(0)) if z is None else (gated[0], last, states, out)


@_scan.register_fake
def _(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None, delta_bias: Tensor | None,
      delta_softplus: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    (batch, channels, length), states = u.shape, A.shape[1]
    last = A.new_empty(batch, channels, states)
    kept = A.new_empty(batch, channels, -(-length // CHUNK), 2 * states)
    return torch.empty_like(delta), last, kept, u.new_empty(0) if z is None else torch.empty_like(delta)


@torch.library.custom_op("vssm::selective_scan_cuda_backward", mutates_args=())
def _backward(grad_y: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
              delta_bias: Tensor | None, states: Tensor, out: Tensor, delta_softplus: bool) -> list[Tensor]:  # fmt: skip
    grad_y = grad_y if grad_y.stride(-1) == 1 else grad_y.contiguous()
    du, ddelta, dA, dB, dC, dD, dbias, *dz = _kernel().bwd(
        u, delta, A, B, C, D, z, delta_bias, grad_y, states, None if z is None else out, None, delta_softplus, False)  # fmt: skip
    grads = (du, ddelta, dA, dB.to(B.dtype), dC.to(C.dtype), dD, dz[0] if dz else None, dbias)
    return [u.new_empty(0) if grad is None else grad for grad in grads]


@_backward.register_fake
def _(grad_y: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None, delta_bias: Tensor | None,
      states: Tensor, out: Tensor, delta_softplus: bool) -> list[Tensor]:  # fmt: skip
    return [u.new_empty(0) if part is None else torch.empty_like(part) for part in (u, delta, A, B, C, D, z, delta_bias)]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, delta_softplus = inputs
    ctx.save_for_backward(*tensors, *output[2:])
    ctx.delta_softplus = delta_softplus
    ctx.set_materialize_grads(False)


def _autograd(ctx: Any, grad_y: Tensor | None, *others: Tensor | None) -> tuple[Tensor | None, ...]:
    *tensors, states, out = ctx.saved_tensors
    if grad_y is None:
        return (None,) * 9
    grads = _backward(grad_y, *tensors, states, out, ctx.delta_softplus)
    return (*(None if part is None else grad for part, grad in zip(tensors, grads, strict=True)), None)


_scan.register_autograd(_autograd, setup_context=_setup_context)


def _sequence(part: Tensor, dtype: torch.dtype, reverse: bool) -> Tensor:
    """A sequence as the kernel wants it: in u's dtype, positions beside each other in memory."""
    part = part.to(dtype)
    part = part.flip(-1) if reverse else part
    return part if part.stride(-1) == 1 else part.contiguous()


def _contiguous(part: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if part is None else part.to(dtype).contiguous()


def _kernel() -> ModuleType:
    try:
        return import_module("selective_scan_cuda")
    except ImportError as error:
        raise ImportError(f"the CUDA scan needs mamba-ssm's kernel ({error}); {INSTALL}") from error
