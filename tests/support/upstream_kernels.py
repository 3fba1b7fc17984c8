"""Stand-ins for mamba-ssm's and causal-conv1d's kernels on a CPU: they compute by the reference, and refuse what the kernels of mamba-ssm 2.3.2 and
causal-conv1d 1.7.0 refuse (their TORCH_CHECKs on dtypes, shapes and strides).
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import pytest
import torch
from torch import Tensor

from models.ssm.conv import conv_reference
from models.ssm.scan import scan_reference

NARROW = (torch.float32, torch.float16, torch.bfloat16)


def install(monkeypatch: pytest.MonkeyPatch, *, wrong_from: int | None = None) -> None:
    """Puts the stand-ins in place of the packages. `wrong_from`: scans of this length or longer lose a position, as if miscompiled."""

    def scan(u, delta, A, B, C, D, z, bias, softplus):  # type: ignore[no-untyped-def]
        if wrong_from is not None and u.shape[-1] >= wrong_from:
            B = torch.cat((B[..., :7], B[..., 7:8] * 0, B[..., 8:]), dim=-1)
        return scan_reference(u, delta, A, B, C, D, z, bias, softplus, False)

    def fwd(u, delta, A, B, C, D, z, bias, softplus):  # type: ignore[no-untyped-def]
        check_scan(u, delta, A, B, C, D, z, bias)
        y, last = scan(u, delta, A, B, C, D, None, bias, softplus)
        states = A.new_zeros(*u.shape[:2], -(-u.shape[2] // 2048), 2 * A.shape[1])
        states[:, :, -1, 1::2] = last
        gated = [] if z is None else [scan(u, delta, A, B, C, D, z, bias, softplus)[0]]
        return [torch.empty_like(delta).copy_(y), states, *(torch.empty_like(delta).copy_(part) for part in gated)]

    def bwd(u, delta, A, B, C, D, z, bias, dout, states, out, dz, softplus, recompute):  # type: ignore[no-untyped-def]
        check_scan(u, delta, A, B, C, D, z, bias)
        need(dout.dtype == u.dtype and dout.shape == u.shape and dout.stride(-1) == 1, "dout")
        need(states.dtype == A.dtype and states.is_contiguous(), "x")
        need((out is None) == (z is None) and (out is None or out.shape == u.shape), "out")
        tensors = (u, delta, A, B, C, D, z, bias)
        leaves = [None if tensor is None else tensor.detach().requires_grad_() for tensor in tensors]

        def gradients() -> tuple[Tensor, ...]:
            return torch.autograd.grad(scan(*leaves, softplus)[0], [leaf for leaf in leaves if leaf is not None], dout)

        with ThreadPoolExecutor(1) as thread:  # inside an operator this thread records no operations
            grads = iter(thread.submit(gradients).result())
        du, ddelta, dA, dB, dC, dD, gate, dbias = (None if leaf is None else next(grads) for leaf in leaves)
        return [du, ddelta, dA, dB.float(), dC.float(), dD, dbias, *([] if z is None else [gate])]

    def causal_conv1d_fn(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None) -> Tensor:
        need(activation == "silu" and 2 <= weight.shape[-1] <= 4, "causal_conv1d only supports width between 2 and 4")
        need(x.stride(2) == 1 or x.stride(1) == 1, "x stride")
        need(weight.shape == (x.shape[1], weight.shape[-1]) and (bias is None or bias.dtype == weight.dtype), "weight")
        return conv_reference(x, weight.unsqueeze(1), bias, weight.shape[-1] - 1, False)

    for name, content in {"selective_scan_cuda": {"fwd": fwd, "bwd": bwd}, "causal_conv1d": {"causal_conv1d_fn": causal_conv1d_fn}}.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)


def need(holds: bool, what: str) -> None:
    """Raises what TORCH_CHECK would."""
    if not holds:
        raise RuntimeError(f"TORCH_CHECK: {what}")


def check_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None, bias: Tensor | None) -> None:
    """What selective_scan.cpp asks of its inputs."""
    (batch, channels, length), states = u.shape, A.shape[1]
    need(u.dtype in NARROW and A.dtype == torch.float32 and states <= 256, "dtypes")
    for tensor in (u, delta, B, C, *(() if z is None else (z,))):
        need(tensor.dtype == u.dtype and (tensor.stride(-1) == 1 or tensor.shape[-1] == 1), "dtype or stride of a sequence")
    need(delta.shape == u.shape and (z is None or z.shape == u.shape), "shape of delta or z")
    need(B.shape == C.shape == (batch, B.shape[1], states, length), "shape of B or C")
    need(all(part is None or (part.dtype == torch.float32 and part.shape == (channels,)) for part in (D, bias)), "D or delta_bias")
