"""The Triton kernels as torch operators, `vssm::selective_scan_triton` and `vssm::conv1d_silu_triton`, with autograd and shapes for torch.compile.

Triton comes with torch's CUDA build; nothing is compiled before the first call. With TRITON_INTERPRET=1 in the environment Triton runs the kernels in
NumPy, on any machine and slowly: the tests do.
"""

from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from models.ssm.buffers import empty_like, wide_dtype
from models.ssm.conv import gradients_like, keep_inputs
from models.ssm.launch import CHANNELS, DEPTH, LENGTHS, WIDTH, conv_grid, scan_shape

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
INSTALL = "pip install triton (torch's CUDA build brings it), or ask for backend 'reference'"


def scan_triton(
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
    """(y, last state); shapes as in `scan_reference`. ValueError: a dtype that the kernel does not have. ImportError names what to install."""
    D, delta_bias = (None if part is None else part.unsqueeze(0) for part in (D, delta_bias))
    y, last = scan_sides((u,), (delta,), A.unsqueeze(0), (B,), (C,), D, z, delta_bias, delta_softplus, reverse)
    return y.squeeze(0), last.squeeze(0)  # a view backwards too; the gradient of an index would be a tensor of zeros, filled


def scan_sides(
    u: Sequence[Tensor],
    delta: Sequence[Tensor],
    A: Tensor,
    B: Sequence[Tensor],
    C: Sequence[Tensor],
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """(y (S, B, D, L), last states (S, B, D, N)) of S = 1 or 2 scans in one launch, the second in the other direction.

    u, delta: (B, D, L) for each side; A: (S, D, N); B, C: (B, G, N, L) for each side; D, delta_bias: (S, D); z: (B, D, L), of both sides.
    """
    dtype = u[0].dtype
    if dtype not in DTYPES:
        raise ValueError(f"the Triton scan takes fp32, bf16, fp16 and fp64, not {dtype}; ask for backend 'reference'")
    parts = [alike([tensor.to(dtype) for tensor in part]) for part in (u, delta, B, C)]
    tensors = [tensor for tensor in (*u, *delta, A, *B, *C, D, z, delta_bias) if tensor is not None]
    save = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    z = None if z is None else z.to(dtype)
    y, last, _ = _scan(parts[0], parts[1], A, parts[2], parts[3], D, z, delta_bias, delta_softplus, reverse, save)
    return y, last


def scan_both_ways(
    u: Sequence[Tensor], delta: Sequence[Tensor], A: Tensor, B: Sequence[Tensor], C: Sequence[Tensor], D: Tensor, *, z: Tensor, delta_bias: Tensor
) -> Tensor:
    """y * silu(z), (2, B, D, L), of a scan ahead and a scan back with softplus, in one launch. B, C: (B, N, L) for each; else as `scan_sides`."""
    inputs, readouts = ([part.unsqueeze(1) for part in pair] for pair in (B, C))
    return scan_sides(u, delta, A, inputs, readouts, D, z, delta_bias, True)[0]


def alike(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors, with the same strides."""
    return list(tensors) if len({tensor.stride() for tensor in tensors}) == 1 else [tensor.contiguous() for tensor in tensors]


def conv_triton(x: Tensor, weight: Tensor, bias: Tensor | None, left: int, reverse: bool) -> Tensor:
    """silu(conv(x) + bias), as `conv_reference`. ValueError: a dtype that the kernel does not have. ImportError names what to install."""
    if x.dtype not in DTYPES:
        raise ValueError(f"the Triton convolution takes fp32, bf16, fp16 and fp64, not {x.dtype}; ask for backend 'reference'")
    y: Tensor = _conv(x, weight, bias, left, reverse)
    return y


# the scan


@torch.library.custom_op("vssm::selective_scan_triton", mutates_args=())
def _scan(u: list[Tensor], delta: list[Tensor], A: Tensor, B: list[Tensor], C: list[Tensor], D: Tensor | None, z: Tensor | None,
          delta_bias: Tensor | None, delta_softplus: bool, reverse: bool, save: bool) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    kernels, shape = _kernels("scan"), scan_shape(u[0].shape, B[0].shape, sides=len(u))
    y, last, kept = _scan_outputs(u, A, B, save)
    A, D, delta_bias = _parameters(u[0], A.transpose(1, 2), D, delta_bias)
    kernels.scan_forward[(shape.programs,)](
        u[0], u[-1], delta[0], delta[-1], A, B[0], B[-1], C[0], C[-1], D, _gate(z, u[0]), delta_bias, y, last, kept,
        *u[0].stride(), *delta[0].stride(), *B[0].stride(), *C[0].stride(), *_gate(z, u[0]).stride(), *y.stride(), *shape.sizes(), CHANNELS,
        **shape.constants(), **_options(u[0], delta_softplus, reverse, D, z, delta_bias), SAVE=save, num_warps=shape.warps)  # fmt: skip
    return y, last, kept


@_scan.register_fake
def _(u: list[Tensor], delta: list[Tensor], A: Tensor, B: list[Tensor], C: list[Tensor], D: Tensor | None, z: Tensor | None,
      delta_bias: Tensor | None, delta_softplus: bool, reverse: bool, save: bool) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return _scan_outputs(u, A, B, save)


@torch.library.custom_op("vssm::selective_scan_triton_backward", mutates_args=())
def _scan_backward(grad_y: Tensor, grad_last: Tensor | None, u: list[Tensor], delta: list[Tensor], A: Tensor, B: list[Tensor], C: list[Tensor],
                   D: Tensor | None, z: Tensor | None, delta_bias: Tensor | None, kept: Tensor, delta_softplus: bool,
                   reverse: bool) -> list[Tensor]:  # fmt: skip
    kernels, shape = _kernels("scan"), scan_shape(u[0].shape, B[0].shape, sides=len(u))
    sides, wide, channels, states = len(u), wide_dtype(u[0]), u[0].shape[1], A.shape[2]
    own = _stacked(u, 2 if z is None else 3)  # the gradients of u, delta and z
    dA = A.new_empty(sides, shape.batch, states, channels, dtype=wide)
    dD, dbias = (A.new_empty(sides, shape.batch, channels, dtype=wide) for _ in range(2))
    shared = A.new_empty(2, sides, shape.batch, shape.groups, shape.blocks, shape.length, states, dtype=wide)
    noted = A.new_empty(shape.noted_elements(), dtype=wide)
    grad_last = None if grad_last is None else grad_last.to(wide).transpose(2, 3).contiguous()
    wide_A, wide_D, wide_bias = _parameters(u[0], A.transpose(1, 2), D, delta_bias)
    kernels.scan_backward[(shape.programs,)](
        u[0], u[-1], delta[0], delta[-1], wide_A, B[0], B[-1], C[0], C[-1], wide_D, _gate(z, u[0]), wide_bias, kept, grad_y, grad_last, noted,
        own, dA, shared, dD, dbias,
        *u[0].stride(), *delta[0].stride(), *B[0].stride(), *C[0].stride(), *_gate(z, u[0]).stride(), *grad_y.stride(), *own.stride(), *shape.sizes(),
        **shape.constants(), **_options(u[0], delta_softplus, reverse, D, z, delta_bias), DEPTH=DEPTH, HAS_LAST=grad_last is not None,
        num_warps=shape.warps, maxnreg=shape.most_registers)  # fmt: skip
    vectors = [part.sum(1).to(part.dtype if like is None else like.dtype) for part, like in ((dD, D), (dbias, delta_bias))]
    return [own, dA.sum(1).to(A.dtype).transpose(1, 2), shared.sum(4).to(B[0].dtype).transpose(4, 5), *vectors]


@_scan_backward.register_fake
def _(grad_y: Tensor, grad_last: Tensor | None, u: list[Tensor], delta: list[Tensor], A: Tensor, B: list[Tensor], C: list[Tensor], D: Tensor | None,
      z: Tensor | None, delta_bias: Tensor | None, kept: Tensor, delta_softplus: bool, reverse: bool) -> list[Tensor]:  # fmt: skip
    (batch, groups, states, length), channels = B[0].shape, A.shape[1]
    vectors = [u[0].new_empty(len(u), channels, dtype=wide_dtype(u[0]) if like is None else like.dtype) for like in (D, delta_bias)]
    shared = B[0].new_empty(2, len(u), batch, groups, length, states).transpose(4, 5)
    return [_stacked(u, 2 if z is None else 3), A.new_empty(len(u), states, channels).transpose(1, 2), shared, *vectors]


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse, _ = inputs
    ctx.save_for_backward(*u, *delta, *B, *C, A, D, z, delta_bias, output[2])
    ctx.sides, ctx.delta_softplus, ctx.reverse = len(u), delta_softplus, reverse
    ctx.set_materialize_grads(False)


def _scan_gradients(ctx: Any, grad_y: Tensor | None, grad_last: Tensor | None, _: Tensor | None) -> tuple[Any, ...]:
    sides, saved = ctx.sides, ctx.saved_tensors
    u, delta, B, C = (list(saved[at * sides : (at + 1) * sides]) for at in range(4))
    A, D, z, delta_bias, kept = saved[4 * sides :]
    grad_y = u[0].new_zeros(()).expand(sides, *u[0].shape) if grad_y is None else grad_y
    own, dA, shared, dD, dbias = _scan_backward(
        grad_y, grad_last, u, delta, A, B, C, D, z, delta_bias, kept, ctx.delta_softplus, ctx.reverse)  # fmt: skip
    du, ddelta, dB, dC = (list(part.unbind(0)) for part in (own[0], own[1], shared[0], shared[1]))
    dz = None if z is None else own[2][0] if sides == 1 else own[2][0] + own[2][1]
    return du, ddelta, dA, dB, dC, None if D is None else dD, dz, None if delta_bias is None else dbias, None, None, None


_scan.register_autograd(_scan_gradients, setup_context=_keep_for_backward)


# the convolution


@torch.library.custom_op("vssm::conv1d_silu_triton", mutates_args=())
def _conv(x: Tensor, weight: Tensor, bias: Tensor | None, left: int, reverse: bool) -> Tensor:
    y, wide, grid = empty_like(x), wide_dtype(x), conv_grid(x.shape)
    taps, offset = _parameters(x, weight, bias)
    _kernels("conv").conv_forward[grid](
        x, taps, offset, y, *x.stride(), *y.stride(), x.shape[2], x.shape[1], left,
        TAPS=weight.shape[-1], HAS_BIAS=bias is not None, REVERSE=reverse, WIDE=_element(wide), T=LENGTHS, W=WIDTH)  # fmt: skip
    return y


@_conv.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, left: int, reverse: bool) -> Tensor:
    return empty_like(x)


@torch.library.custom_op("vssm::conv1d_silu_triton_backward", mutates_args=())
def _conv_backward(grad_y: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, left: int, reverse: bool) -> list[Tensor]:
    kernels, wide, grid = _kernels("conv"), wide_dtype(x), conv_grid(x.shape)
    (batch, channels, length), taps = x.shape, weight.shape[-1]
    dx, inner = empty_like(x), empty_like(x, wide)
    parts = batch * -(-length // LENGTHS)
    dweight, dbias = x.new_empty(parts, taps, channels, dtype=wide), x.new_empty(parts, channels, dtype=wide)
    wide_weight, wide_bias = _parameters(x, weight, bias)
    constants = {"TAPS": taps, "REVERSE": reverse, "WIDE": _element(wide), "T": LENGTHS, "W": WIDTH}
    kernels.conv_backward_taps[grid](
        x, wide_weight, wide_bias, grad_y, inner, dweight, dbias, *x.stride(), *grad_y.stride(), *inner.stride(), length, channels, left,
        HAS_BIAS=bias is not None, **constants)  # fmt: skip
    kernels.conv_backward_x[grid](inner, wide_weight, dx, *inner.stride(), *dx.stride(), length, channels, left, **constants)
    total = dweight.sum(0).t().reshape(weight.shape).to(weight.dtype)
    return [dx, total, dbias.sum(0).to(wide if bias is None else bias.dtype)]


_conv_backward.register_fake(gradients_like)


def _conv_gradients(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, bias = ctx.saved_tensors
    dx, dweight, dbias = _conv_backward(grad_y, x, weight, bias, ctx.left, ctx.reverse)
    return dx, dweight, None if bias is None else dbias, None, None


_conv.register_autograd(_conv_gradients, setup_context=keep_inputs)


# what both need


def _kernels(name: str) -> ModuleType:
    try:
        return import_module(f"models.ssm.triton_{name}")
    except ImportError as error:
        raise ImportError(f"the Triton kernels need Triton ({error}); {INSTALL}") from error


def _element(dtype: torch.dtype) -> Any:
    """Triton's name of a dtype."""
    import triton.language as tl

    return tl.float64 if dtype == torch.float64 else tl.float32


def _options(u: Tensor, softplus: bool, reverse: bool, D: Tensor | None, z: Tensor | None, bias: Tensor | None) -> dict[str, Any]:
    given = {"HAS_D": D is not None, "HAS_Z": z is not None, "HAS_BIAS": bias is not None}
    return given | {"WIDE": _element(wide_dtype(u)), "SOFTPLUS": softplus, "REVERSE": int(reverse)}


def _gate(z: Tensor | None, u: Tensor) -> Tensor:
    """z, or without one a tensor of its shape that the kernel does not read."""
    return u if z is None else z


def _parameters(u: Tensor, *tensors: Tensor | None) -> list[Any]:
    return [None if tensor is None else tensor.to(wide_dtype(u)).contiguous() for tensor in tensors]


def _stacked(u: list[Tensor], *more: int) -> Tensor:
    """An unset tensor (*more, S, B, D, L). Its fastest dimension is D if that is the fastest of u, else L."""
    batch, channels, length = u[0].shape
    if u[0].stride(1) == 1:
        return u[0].new_empty(*more, len(u), batch, length, channels).transpose(-1, -2)
    return u[0].new_empty(*more, len(u), batch, channels, length)


def _scan_outputs(u: list[Tensor], A: Tensor, B: list[Tensor], save: bool) -> tuple[Tensor, Tensor, Tensor]:
    """y, last states, and the states at the chunks' starts but the first, unset."""
    shape, wide = scan_shape(u[0].shape, B[0].shape, sides=len(u)), wide_dtype(u[0])
    last = u[0].new_empty(len(u), shape.batch, shape.states, shape.channels, dtype=wide).transpose(2, 3)
    return _stacked(u), last, u[0].new_empty(shape.kept_elements() if save else 0, dtype=wide)
