"""Depthwise convolution with SiLU, the step before a mixer's scan, under the same backends as the scan: operators `vssm::conv1d_silu` and its
backward.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ssm.backends import is_installed, resolve_backend
from models.ssm.buffers import DTYPES, as_view, empty_like, pointer, wide_dtype
from models.ssm.kernel import ConvArgs, Operators, load_kernel
from models.without_compiler import start_operators

CAUSAL_CONV1D_TAPS = (2, 3, 4)  # what causal-conv1d's kernel has


def conv1d_silu(x: Tensor, weight: Tensor, bias: Tensor | None, *, left: int, reverse: bool = False, backend: str = "auto") -> Tensor:
    """silu(conv(x) + bias), (B, D, L), with the memory layout of x. x: (B, D, L); weight: (D, 1, taps); bias: (D,).

    y[l] sums weight[k] x[l - left + k]; zeros around x. `left` = taps - 1 is causal; reversed, the sequence runs from its last position to its first.
    Backends: `cpu` (C++), `triton`, `cuda` (causal-conv1d where the convolution is causal and has 2 to 4 taps, else Triton, or cuDNN without Triton),
    `reference` (torch).
    ValueError: `left` outside of [0, taps), or a dtype or number of taps that the C++ kernel does not have. KernelMissing.
    """
    if not 0 <= left < weight.shape[-1]:
        raise ValueError(f"left must be 0 to {weight.shape[-1] - 1} for {weight.shape[-1]} taps, not {left}")
    used = resolve_backend(x, backend)
    if used == "cpu":
        if x.dtype not in DTYPES:
            raise ValueError(f"the C++ convolution takes fp32, bf16 and fp64, not {x.dtype}; ask for backend 'reference'")
        y: Tensor = _forward(x, weight, bias, left, reverse)
        return y
    if used == "cuda" and left == weight.shape[-1] - 1 and weight.shape[-1] in CAUSAL_CONV1D_TAPS:
        from models.ssm.cuda import causal_conv_cuda

        return causal_conv_cuda(x, weight, bias, reverse)
    if used == "triton" or (used == "cuda" and is_installed("triton")):
        from models.ssm.triton_ops import conv_triton

        return conv_triton(x, weight, bias, left, reverse)
    return conv_reference(x, weight, bias, left, reverse)


def conv_reference(x: Tensor, weight: Tensor, bias: Tensor | None, left: int, reverse: bool) -> Tensor:
    """The result of `conv1d_silu`, by torch's convolution."""
    right = weight.shape[-1] - 1 - left
    padded, taps = (F.pad(x, (right, left)), weight.flip(-1)) if reverse else (F.pad(x, (left, right)), weight)
    return F.silu(F.conv1d(padded, taps.to(x.dtype), None if bias is None else bias.to(x.dtype), groups=x.shape[1]))


@torch.library.custom_op("vssm::conv1d_silu", mutates_args=(), device_types="cpu")
def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, left: int, reverse: bool) -> Tensor:
    if not Operators.compute:
        return empty_like(x).zero_()
    out, args, kept = empty_like(x), *_arguments(x, weight, bias, left, reverse)
    args.out = as_view(out)
    load_kernel().convolve(args, x.element_size(), backwards=False)
    del kept
    return out


@_forward.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, left: int, reverse: bool) -> Tensor:
    return empty_like(x)


@torch.library.custom_op("vssm::conv1d_silu_backward", mutates_args=(), device_types="cpu")
def _backward(grad_out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, left: int, reverse: bool) -> list[Tensor]:
    grad_x, args, kept = empty_like(x), *_arguments(x, weight, bias, left, reverse)
    grad_weight = x.new_empty(x.shape[0], x.shape[1], weight.shape[-1], dtype=wide_dtype(x))
    grad_bias = x.new_empty(x.shape[:2], dtype=wide_dtype(x))
    args.grad_out, args.grad_x, args.grad_weight, args.grad_bias = as_view(grad_out), as_view(grad_x), grad_weight.data_ptr(), grad_bias.data_ptr()
    load_kernel().convolve(args, x.element_size(), backwards=True)
    del kept
    return [grad_x, grad_weight.sum(0).reshape(weight.shape).to(weight.dtype), grad_bias.sum(0).to(grad_bias.dtype if bias is None else bias.dtype)]


@_backward.register_fake
def gradients_like(grad_out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, left: int, reverse: bool) -> list[Tensor]:
    """Empty gradients of x, weight and bias, for operators of this signature: the shapes without the numbers."""
    vector = x.new_empty(x.shape[1], dtype=wide_dtype(x) if bias is None else bias.dtype)
    return [empty_like(x), torch.empty_like(weight, memory_format=torch.contiguous_format), vector]


def keep_inputs(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None, int, bool], output: Tensor) -> None:
    """Keeps what the backward pass of a convolution needs: x, weight, bias, left, reverse."""
    x, weight, bias, left, reverse = inputs
    ctx.save_for_backward(x, weight, bias)
    ctx.left, ctx.reverse = left, reverse


def _autograd(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, bias = ctx.saved_tensors
    grad_x, grad_weight, grad_bias = _backward(grad_out, x, weight, bias, ctx.left, ctx.reverse)
    return grad_x, grad_weight, None if bias is None else grad_bias, None, None


_forward.register_autograd(_autograd, setup_context=keep_inputs)
start_operators(_forward, _backward)


def _arguments(x: Tensor, weight: Tensor, bias: Tensor | None, left: int, reverse: bool) -> tuple[ConvArgs, list[Tensor | None]]:
    """The kernel's arguments, and the tensors that must live until it has run."""
    batch, channels, length = x.shape
    taps = weight.shape[-1]
    if taps > load_kernel().max_taps:
        raise ValueError(f"the C++ convolution takes up to {load_kernel().max_taps} taps, not {taps}; ask for backend 'reference'")
    kept = [None if part is None else part.to(wide_dtype(x)).contiguous() for part in (weight, bias)]
    args = ConvArgs(
        batch=batch,
        channels=channels,
        length=length,
        taps=taps,
        left=left,
        reverse=reverse,
        threads=torch.get_num_threads(),
        x=as_view(x),
        weight=pointer(kept[0]),
        bias=pointer(kept[1]),
    )
    return args, kept
