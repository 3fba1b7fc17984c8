"""Tensors as the kernels see them."""

import pytest
import torch

from models.ssm.buffers import as_shared_view, as_view, empty_like, pointer, wide_dtype


@pytest.mark.parametrize(("dtype", "wide"), [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)])
def test_kernels_compute_in_fp32_at_least(dtype: torch.dtype, wide: torch.dtype) -> None:
    assert wide_dtype(torch.zeros(1, dtype=dtype)) == wide


def test_a_view_has_the_address_and_the_strides() -> None:
    x = torch.zeros(2, 5, 7)
    view, transposed = as_view(x), as_view(x.transpose(1, 2))
    assert (view.data, view.b, view.d, view.l) == (x.data_ptr(), 35, 7, 1)
    assert (transposed.data, transposed.b, transposed.d, transposed.l) == (x.data_ptr(), 35, 1, 7)
    shared = as_shared_view(torch.zeros(2, 3, 4, 5))
    assert (shared.b, shared.g, shared.n, shared.l) == (60, 20, 5, 1)


def test_an_absent_tensor_is_a_null_pointer() -> None:
    assert as_view(None).data is None and pointer(None) is None
    x = torch.zeros(3)
    assert pointer(x) == x.data_ptr()


def test_a_buffer_is_dense_with_the_same_fastest_dimension() -> None:
    x = torch.zeros(2, 6, 10)
    assert empty_like(x[:, ::2]).stride() == (30, 10, 1)
    assert empty_like(x.transpose(1, 2)).stride() == (60, 1, 10)
    assert empty_like(x.transpose(1, 2)[:, :, ::2]).stride() == (30, 1, 10)
