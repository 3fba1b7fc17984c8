"""What fp32 means on a GPU is what the recipe says. No GPU is needed to ask torch for its switches."""

from collections.abc import Iterator

import pytest
import torch

from jobs.parallel.precision import set_precision, uses_tf32


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    set_precision("fp32")


@pytest.mark.parametrize(("dtype", "on"), [("fp32", False), ("bf16", False), ("tf32", True)])
def test_only_tf32_uses_tf32_in_products_and_in_convolutions(dtype: str, on: bool) -> None:
    set_precision("fp32" if on else "tf32")
    set_precision(dtype)
    assert torch.backends.cudnn.allow_tf32 is on and torch.backends.cuda.matmul.allow_tf32 is on and uses_tf32() is on


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_fp32_is_exact_to_its_mantissa_and_tf32_is_not() -> None:
    left, images = torch.randn(512, 512, device="cuda"), torch.randn(8, 64, 32, 32, device="cuda")
    kernel = torch.randn(64, 64, 3, 3, device="cuda")
    operations = (lambda x: left.to(x) @ left.to(x), lambda x: torch.nn.functional.conv2d(images.to(x), kernel.to(x)))
    for dtype, low, high in (("fp32", 0.0, 2e-5), ("tf32", 1e-4, 1e-2)):
        set_precision(dtype)
        for operation in operations:
            whole = operation(torch.float64)
            error = float((operation(torch.float32).double() - whole).norm() / whole.norm())
            assert low <= error < high, (dtype, error)
