"""The C++ scan as torch operators, `vssm::selective_scan` and `vssm::selective_scan_backward`, with autograd and shapes for torch.compile."""

from typing import Any

import torch
from torch import Tensor

from models.ssm.buffers import DTYPES, as_shared_view, as_view, empty_like, pointer, wide_dtype
from models.ssm.kernel import Kernel, Operators, ScanArgs, load_kernel
from models.without_compiler import start_operators


def scan_cpu(
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
    """(y, last state) by the C++ kernel; shapes as in `scan_reference`. ValueError: a dtype that the kernel does not have. KernelMissing."""
    if u.dtype not in DTYPES:
        raise ValueError(f"the C++ scan takes fp32, bf16 and fp64, not {u.dtype}; ask for backend 'reference'")
    tensors = [tensor for tensor in (u, delta, A, B, C, D, z, delta_bias) if tensor is not None]
    save = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    delta, z = delta.to(u.dtype), None if z is None else z.to(u.dtype)
    y, last, _ = _forward(u, delta, A, B.to(u.dtype), C.to(u.dtype), D, z, delta_bias, delta_softplus, reverse, save)
    return y, last


@torch.library.custom_op("vssm::selective_scan", mutates_args=(), device_types="cpu")
def _forward(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None, delta_bias: Tensor | None,
             delta_softplus: bool, reverse: bool, save: bool) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    y, last, checkpoints = _outputs(u, A, B, save)
    if not Operators.compute:
        return y.zero_(), last.zero_(), checkpoints.zero_()
    kernel, parts = load_kernel(), _parameters(u, A, D, delta_bias)
    kernel.use_large_pages(y, checkpoints)
    args = _arguments(u, delta, A, B, C, z, delta_softplus, reverse)
    args.A, args.D, args.bias = (pointer(part) for part in parts)
    args.out, args.last, args.checkpoints = as_view(y), pointer(last), pointer(checkpoints) if save else None
    kernel.scan(args, u.element_size(), backwards=False)
    return y, last, checkpoints


@_forward.register_fake
def _(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None, delta_bias: Tensor | None,
      delta_softplus: bool, reverse: bool, save: bool) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return _outputs(u, A, B, save)


@torch.library.custom_op("vssm::selective_scan_backward", mutates_args=(), device_types="cpu")
def _backward(grad_y: Tensor, grad_last: Tensor | None, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
              delta_bias: Tensor | None, checkpoints: Tensor, delta_softplus: bool, reverse: bool) -> list[Tensor]:  # fmt: skip
    kernel, parts, wide = load_kernel(), _parameters(u, A, D, delta_bias), wide_dtype(u)
    (batch, channels, length), (groups, states) = u.shape, B.shape[1:3]
    grad_u, grad_delta = empty_like(u), empty_like(u)
    grad_z = u.new_empty(0) if z is None else empty_like(z)
    grad_A, grad_D, grad_bias = (u.new_empty(batch, channels, *tail, dtype=wide) for tail in ((states,), (), ()))
    grad_B, grad_C = (u.new_empty(batch, groups, _splits(kernel, u, groups), length, states, dtype=wide) for _ in "BC")
    kernel.use_large_pages(grad_u, grad_delta, grad_z)
    last = None if grad_last is None else grad_last.to(wide).contiguous()
    args = _arguments(u, delta, A, B, C, z, delta_softplus, reverse)
    args.A, args.D, args.bias = (pointer(part) for part in parts)
    args.grad_out, args.grad_last, args.checkpoints = as_view(grad_y), pointer(last), pointer(checkpoints)
    args.grad_u, args.grad_delta, args.grad_z = as_view(grad_u), as_view(grad_delta), as_view(None if z is None else grad_z)
    args.grad_A, args.grad_D, args.grad_bias, args.grad_B, args.grad_C = (part.data_ptr() for part in (grad_A, grad_D, grad_bias, grad_B, grad_C))
    kernel.scan(args, u.element_size(), backwards=True)
    sums = [grad_A.sum(0).to(A.dtype), *(_summed(part).to(B.dtype).transpose(2, 3) for part in (grad_B, grad_C))]
    vectors = [grad.sum(0).to(grad.dtype if like is None else like.dtype) for grad, like in ((grad_D, D), (grad_bias, delta_bias))]
    return [grad_u, grad_delta, *sums, vectors[0], grad_z, vectors[1]]


@_backward.register_fake
def _(grad_y: Tensor, grad_last: Tensor | None, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
      delta_bias: Tensor | None, checkpoints: Tensor, delta_softplus: bool, reverse: bool) -> list[Tensor]:  # fmt: skip
    batch, groups, states, length = B.shape
    shared = [B.new_empty(batch, groups, length, states).transpose(2, 3) for _ in "BC"]
    vectors = [u.new_empty(u.shape[1], dtype=wide_dtype(u) if like is None else like.dtype) for like in (D, delta_bias)]
    return [empty_like(u), empty_like(u), torch.empty_like(A, memory_format=torch.contiguous_format), *shared, vectors[0],
            u.new_empty(0) if z is None else empty_like(z), vectors[1]]  # fmt: skip


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, delta_softplus, reverse, _ = inputs
    ctx.save_for_backward(*tensors, output[2])
    ctx.delta_softplus, ctx.reverse = delta_softplus, reverse
    ctx.set_materialize_grads(False)


def _autograd(ctx: Any, grad_y: Tensor | None, grad_last: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    u, delta, A, B, C, D, z, delta_bias, checkpoints = ctx.saved_tensors
    grad_y = torch.zeros_like(u) if grad_y is None else grad_y
    grads = _backward(grad_y, grad_last, u, delta, A, B, C, D, z, delta_bias, checkpoints, ctx.delta_softplus, ctx.reverse)
    absent = {5: D, 6: z, 7: delta_bias}
    return (*(None if at in absent and absent[at] is None else grad for at, grad in enumerate(grads)), None, None, None)


_forward.register_autograd(_autograd, setup_context=_setup_context)
start_operators(_forward, _backward)


def _splits(kernel: Kernel, u: Tensor, groups: int) -> int:
    """The number of tasks that share a sample's group of B and C."""
    return -(-_blocks(kernel, u, groups) // kernel.blocks)


def _blocks(kernel: Kernel, u: Tensor, groups: int) -> int:
    return -(-(u.shape[1] // groups) // _lanes(kernel, u))


def _lanes(kernel: Kernel, u: Tensor) -> int:
    return kernel.vector_bytes // wide_dtype(u).itemsize


def _outputs(u: Tensor, A: Tensor, B: Tensor, save: bool) -> tuple[Tensor, Tensor, Tensor]:
    """y, last state and checkpoints, unset."""
    shape = _checkpoint_shape(load_kernel(), u, A.shape[1], B.shape[1]) if save else (0,)
    last = u.new_empty(u.shape[0], u.shape[1], A.shape[1], dtype=wide_dtype(u))
    return empty_like(u), last, u.new_empty(shape, dtype=wide_dtype(u))


def _checkpoint_shape(kernel: Kernel, u: Tensor, states: int, groups: int) -> tuple[int, ...]:
    """The shape of the states kept at the start of every chunk: (B, G, blocks, chunks, padded states, lanes)."""
    padded, chunks = -(-states // kernel.states) * kernel.states, -(-u.shape[2] // kernel.chunk)
    return u.shape[0], groups, _blocks(kernel, u, groups), chunks, padded, _lanes(kernel, u)


def _parameters(u: Tensor, *tensors: Tensor | None) -> list[Tensor | None]:
    return [None if tensor is None else tensor.to(wide_dtype(u)).contiguous() for tensor in tensors]


def _arguments(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, z: Tensor | None, delta_softplus: bool, reverse: bool) -> ScanArgs:
    batch, channels, length = u.shape
    return ScanArgs(
        batch=batch,
        channels=channels,
        length=length,
        states=A.shape[1],
        groups=B.shape[1],
        softplus=delta_softplus,
        reverse=reverse,
        threads=torch.get_num_threads(),
        u=as_view(u),
        delta=as_view(delta),
        z=as_view(z),
        B=as_shared_view(B),
        C=as_shared_view(C),
    )


def _summed(partial: Tensor) -> Tensor:
    """(B, G, L, N) from (B, G, splits, L, N), summed from the first split to the last."""
    return partial.squeeze(2) if partial.shape[2] == 1 else partial.sum(2)
