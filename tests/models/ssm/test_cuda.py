"""The CUDA kernels against the reference, at upstream's own tolerances; and what is said where they are missing."""

import importlib.util

import pytest
import torch

from models.registry import create_model
from models.ssm import cuda
from models.ssm.conv import conv1d_silu
from tests.support.scans import gradients, problem

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device with the kernels of slurm/install_cuda.sh")


@pytest.mark.gpu
@gpu
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("groups", [0, 2])
@pytest.mark.parametrize(("dtype", "rtol", "atol"), [(torch.float32, 6e-4, 2e-3), (torch.bfloat16, 3e-2, 5e-2)])
def test_the_cuda_scan_equals_the_reference(dtype: torch.dtype, rtol: float, atol: float, groups: int, reverse: bool) -> None:
    inputs = {name: tensor.cuda() for name, tensor in problem(2, 32, 197, 16, groups, dtype).items()}
    got = gradients(inputs, backend="cuda", reverse=reverse, last=False)
    want = gradients(inputs, backend="reference", reverse=reverse, last=False)
    for name, tensor in want.items():
        scale = 1 if name == "y" else 10  # gradients sum over batch and length
        torch.testing.assert_close(
            got[name].float(), tensor.float(), rtol=rtol * scale, atol=atol * scale, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.gpu
@gpu
@pytest.mark.parametrize("reverse", [False, True])
def test_the_cuda_convolution_equals_the_reference(reverse: bool) -> None:
    x, weight, bias = torch.randn(2, 32, 50).cuda(), torch.randn(32, 1, 4).cuda(), torch.randn(32).cuda()
    got, want = (conv1d_silu(x, weight, bias, left=3, reverse=reverse, backend=backend) for backend in ("cuda", "reference"))
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3)


@pytest.mark.gpu
@gpu
@pytest.mark.parametrize("name", ["vim_tiny", "mambavision_t"])
def test_models_agree_on_cpu_and_gpu(name: str) -> None:
    torch.manual_seed(0)
    model, images = create_model(name).eval(), torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        want = model(images)
        got = model.cuda()(images.cuda()).cpu()
    assert (got - want).norm() / want.norm() < 5e-3


@pytest.mark.skipif(importlib.util.find_spec("selective_scan_cuda") is not None, reason="the kernel is installed")
def test_missing_kernels_say_how_to_install_them() -> None:
    inputs = problem(1, 4, 5, 2, 1, torch.float32)
    with pytest.raises(ImportError, match="slurm/install_cuda.sh"):
        cuda.scan_cuda(*inputs.values(), True, False)
