"""Backends go by name and device."""

import pytest
import torch

from models.ssm.backends import resolve_backend, runs_backwards, scan_backend_used


def test_backends_go_by_name_and_device() -> None:
    assert [scan_backend_used(device) for device in ("cpu", "cuda")] == ["cpu", "cuda"]
    assert scan_backend_used("cuda", "reference") == "reference"
    with pytest.raises(ValueError, match="does not take tensors on 'cpu'"):
        scan_backend_used("cpu", "cuda")
    with pytest.raises(ValueError, match="unknown scan backend 'gpu'; valid: auto, cpu, cuda, reference"):
        scan_backend_used("cpu", "gpu")


def test_a_tensors_device_decides_and_a_meta_tensor_takes_any_backend() -> None:
    assert resolve_backend(torch.zeros(1), "auto") == "cpu"
    assert [resolve_backend(torch.zeros(1, device="meta"), backend) for backend in ("auto", "cuda")] == ["cpu", "cuda"]


def test_a_device_without_a_kernel_needs_the_reference() -> None:
    with pytest.raises(ValueError, match="no scan kernel for device 'mps'; ask for backend 'reference'"):
        scan_backend_used("mps")
    assert scan_backend_used("mps", "reference") == "reference"


def test_only_the_cpp_kernels_run_backwards() -> None:
    x = torch.zeros(1)
    assert runs_backwards(x, "auto") and runs_backwards(x, "cpu") and not runs_backwards(x, "reference")
    assert not runs_backwards(torch.zeros(1, device="meta"), "cuda")
