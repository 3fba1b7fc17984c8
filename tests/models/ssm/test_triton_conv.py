"""The Triton convolution, compiled on a GPU or in Triton's interpreter: against torch's."""

import pytest
import torch

from models.ssm.conv import conv1d_silu
from tests.models.ssm.test_conv import inputs
from tests.support.triton_device import DEVICE, needs_triton

pytestmark = needs_triton


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("channels", "length", "taps", "left"), [(5, 9, 4, 3), (70, 33, 3, 1), (16, 2, 5, 4), (1, 1, 1, 0), (7, 20, 7, 3)])
def test_the_kernel_equals_torch_s_convolution(channels: int, length: int, taps: int, left: int, channels_last: bool, reverse: bool) -> None:
    leaves = [part.to(DEVICE).requires_grad_() for part in inputs(channels, length, taps, channels_last=channels_last)]
    outputs = [conv1d_silu(*leaves, left=left, reverse=reverse, backend=backend) for backend in ("triton", "reference")]
    torch.testing.assert_close(outputs[0], outputs[1])
    weights = torch.randn_like(outputs[0])
    got, want = (torch.autograd.grad((output * weights).sum(), leaves) for output in outputs)
    torch.testing.assert_close(got, want)
    assert outputs[0].stride() == leaves[0].stride()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types_are_summed_in_fp32(dtype: torch.dtype) -> None:
    x, weight, bias = (part.to(DEVICE) for part in inputs(40, 33, 4, torch.float32, channels_last=True))
    y = conv1d_silu(x.to(dtype), weight, bias, left=3, backend="triton")
    want = conv1d_silu(x.to(dtype).float(), weight, bias, left=3, backend="reference")
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), want, rtol=1 / 128, atol=1e-5)  # one rounding, that of the result


def test_a_convolution_without_bias_has_none_and_repeats_to_the_bit() -> None:
    x, weight, _ = (part.to(DEVICE).requires_grad_() for part in inputs(70, 40, 3, torch.float32))
    runs = []
    for backend in ("triton", "triton", "reference"):
        y = conv1d_silu(x, weight, None, left=1, backend=backend)
        runs.append((y, *torch.autograd.grad(y.square().sum(), (x, weight))))
    assert all(torch.equal(first, second) for first, second in zip(*runs[:2], strict=True))
    torch.testing.assert_close(runs[0], runs[2], rtol=1e-4, atol=1e-4)
