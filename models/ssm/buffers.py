"""Tensors as the C++ kernels see them: pointers, strides, and the dtypes that the kernels take."""

import torch
from torch import Tensor

from models.ssm.kernel import SharedView, View

DTYPES = (torch.float32, torch.bfloat16, torch.float64)


def wide_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype in which the kernels compute on a tensor of this dtype."""
    return torch.promote_types(tensor.dtype, torch.float32)


def empty_like(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """An unset dense tensor (B, D, L), by default of the same dtype. Its fastest dimension is D if that is the fastest of `tensor`, else L."""
    batch, channels, length = tensor.shape
    if tensor.stride(1) == 1:
        return tensor.new_empty(batch, length, channels, dtype=dtype).transpose(1, 2)
    return tensor.new_empty(batch, channels, length, dtype=dtype)


def as_view(tensor: Tensor | None) -> View:
    """The address and strides of a (B, D, L) tensor; all zero without a tensor."""
    return View() if tensor is None else View(tensor.data_ptr(), *tensor.stride())


def as_shared_view(tensor: Tensor) -> SharedView:
    """The address and strides of B or C, (B, G, N, L)."""
    return SharedView(tensor.data_ptr(), *tensor.stride())


def pointer(tensor: Tensor | None) -> int | None:
    """The address of a tensor's memory; None without a tensor."""
    return None if tensor is None else tensor.data_ptr()
