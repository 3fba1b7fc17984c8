"""The official composition computes what ours does, so that a benchmark of both compares speed alone."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.official import composed_officially
from models.registry import create_model
from models.ssm.scan import selective_scan


def scan(*tensors: Tensor, **options: Any) -> Tensor:
    """mamba_ssm's selective_scan_fn by the reference; what the kernel asks of its inputs holds."""
    u, delta, A, B, C, D = tensors
    assert all(part.stride(-1) == 1 for part in (u, delta, B, C)) and A.dtype == D.dtype == torch.promote_types(u.dtype, torch.float32)
    return selective_scan(*tensors, **options, backend="reference")


def convolve(x: Tensor, weight: Tensor, bias: Tensor, activation: str) -> Tensor:
    """causal_conv1d_fn by torch's convolution."""
    assert activation == "silu" and x.stride(-1) == 1 and weight.ndim == 2
    taps = weight.shape[1]
    return F.silu(F.conv1d(F.pad(x, (taps - 1, 0)), weight.unsqueeze(1), bias, groups=len(weight)))


def outputs(model: nn.Module, images: Tensor) -> list[Tensor]:
    """Logits and the gradients of all parameters."""
    logits = model(images)
    return [logits, *torch.autograd.grad(logits.square().sum(), list(model.parameters()))]


@pytest.mark.parametrize("name", ["vim_micro", "mambavision_micro"])
def test_the_official_composition_gives_our_logits_and_gradients(name: str) -> None:
    torch.manual_seed(0)
    model, images = create_model(name, num_classes=10, scan_backend="reference").eval(), torch.randn(2, 3, 32, 32)
    want = outputs(model, images)
    got = outputs(composed_officially(model, scan, convolve), images)
    for ours, official in zip(want, got, strict=True):
        assert (ours - official).norm() <= 1e-4 * ours.norm() + 1e-6


@pytest.mark.parametrize("name", ["vim_micro", "mambavision_micro"])
def test_the_official_composition_runs_in_bf16(name: str) -> None:
    torch.manual_seed(0)
    model, images = create_model(name, num_classes=10, scan_backend="reference").eval().bfloat16(), torch.randn(2, 3, 32, 32).bfloat16()
    with torch.no_grad():
        want, got = model(images), composed_officially(model, scan, convolve)(images)
    assert got.dtype == torch.bfloat16 and (got - want).norm() < 0.05 * want.norm()


@pytest.mark.parametrize("name", ["vim_micro", "mambavision_micro"])
def test_the_official_composition_calls_the_kernels_it_is_given(name: str) -> None:
    calls: list[str] = []

    def counted(kernel: Any) -> Any:
        def call(*args: Any, **options: Any) -> Tensor:
            calls.append(kernel.__name__)
            return kernel(*args, **options)

        return call

    model = create_model(name, num_classes=10, scan_backend="reference").eval()
    composed_officially(model, counted(scan), counted(convolve))(torch.randn(1, 3, 32, 32))
    mixers = sum(type(module).__name__ in ("BidirectionalMixer", "SSMMixer") for module in model.modules())
    directions = 2 if name == "vim_micro" else 1
    assert calls.count("scan") == directions * mixers
    assert calls.count("convolve") == (2 * mixers if name == "vim_micro" else 0)
