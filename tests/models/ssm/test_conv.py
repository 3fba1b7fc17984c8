"""The convolution of mixers: the C++ kernel against torch's, for every instruction set built here."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from models.ssm import conv, kernel
from models.ssm.conv import conv1d_silu


@pytest.fixture(params=kernel.runnable_variants())
def variant(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The C++ backend, built for each instruction set that this CPU has."""
    monkeypatch.setattr(conv, "load_kernel", lambda: kernel.load_kernel(request.param))
    yield request.param


def inputs(channels: int, length: int, taps: int, dtype: torch.dtype = torch.float64, channels_last: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(2, length, channels, dtype=dtype).transpose(1, 2) if channels_last else torch.randn(2, channels, length, dtype=dtype)
    return x, torch.randn(channels, 1, taps, dtype=dtype), torch.randn(channels, dtype=dtype)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("channels", "length", "taps", "left"), [(5, 9, 4, 3), (40, 33, 3, 1), (16, 2, 4, 3), (1, 1, 1, 0), (7, 20, 7, 3)])
def test_the_kernel_equals_torch_s_convolution(
    variant: str, channels: int, length: int, taps: int, left: int, channels_last: bool, reverse: bool
) -> None:
    leaves = [[tensor.clone().requires_grad_() for tensor in inputs(channels, length, taps, channels_last=channels_last)] for _ in range(2)]
    outputs = [conv1d_silu(*leaf, left=left, reverse=reverse, backend=backend) for leaf, backend in zip(leaves, ("cpu", "reference"), strict=True)]
    torch.testing.assert_close(outputs[0], outputs[1])
    weights = torch.randn_like(outputs[0])
    gradients = [torch.autograd.grad((output * weights).sum(), leaf) for output, leaf in zip(outputs, leaves, strict=True)]
    torch.testing.assert_close(gradients[0], gradients[1])


def test_gradients_pass_gradcheck(variant: str) -> None:
    x, weight, bias = (tensor.requires_grad_() for tensor in inputs(3, 6, 4))
    assert torch.autograd.gradcheck(lambda *leaves: conv1d_silu(*leaves, left=3, reverse=True, backend="cpu"), (x, weight, bias))


@pytest.mark.parametrize("channels_last", [False, True])
def test_bf16_is_summed_in_fp32(variant: str, channels_last: bool) -> None:
    x, weight, bias = inputs(40, 33, 4, torch.float32, channels_last)
    y = conv1d_silu(x.bfloat16(), weight, bias, left=3, backend="cpu")
    want = conv1d_silu(x.bfloat16().float(), weight, bias, left=3, backend="reference")
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), want, rtol=1 / 128, atol=1e-5)  # one rounding, that of the result


def test_the_output_is_laid_out_as_the_input() -> None:
    x, weight, bias = inputs(5, 9, 4, channels_last=True)
    assert conv1d_silu(x, weight, bias, left=3, backend="cpu").stride() == x.stride()


def test_results_are_equal_to_the_bit_for_any_number_of_threads() -> None:
    x, weight, bias = (tensor.requires_grad_() for tensor in inputs(100, 40, 4, torch.float32))
    threads, runs = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            y = conv1d_silu(x, weight, bias, left=3)
            runs.append((y, *torch.autograd.grad(y.square().sum(), (x, weight, bias))))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(first, other) for run in runs[1:] for first, other in zip(runs[0], run, strict=True))


def test_a_convolution_without_bias_has_none() -> None:
    x, weight, _ = inputs(5, 9, 3)
    torch.testing.assert_close(conv1d_silu(x, weight, None, left=1, backend="cpu"), conv1d_silu(x, weight, None, left=1, backend="reference"))


def test_the_convolution_compiles_whole() -> None:
    x, weight, bias = (tensor.requires_grad_() for tensor in inputs(4, 6, 4, torch.float32))

    def loss(x: Tensor) -> Tensor:
        return conv1d_silu(x * 2, weight, bias, left=3, reverse=True).square().sum()

    want, got = (torch.autograd.grad(function(x), x) for function in (loss, torch.compile(loss, fullgraph=True, backend="aot_eager")))
    torch.testing.assert_close(got, want)


def test_taps_that_do_not_fit_are_refused() -> None:
    x, weight, bias = inputs(4, 6, 4)
    with pytest.raises(ValueError, match="left must be 0 to 3 for 4 taps, not 4"):
        conv1d_silu(x, weight, bias, left=4)
    with pytest.raises(ValueError, match="up to 16 taps, not 17"):
        conv1d_silu(x, torch.randn(4, 1, 17), bias, left=16)
    with pytest.raises(ValueError, match="not torch.float16"):
        conv1d_silu(x.half(), weight, bias, left=3)
