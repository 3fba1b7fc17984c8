"""Backends go by name and device."""

from pathlib import Path

import pytest
import torch

from models.ssm import backends
from models.ssm.backends import missing_kernels, resolve_backend, runs_backwards, scan_backend_used


def test_backends_go_by_name_and_device() -> None:
    assert scan_backend_used("cpu") == "cpu"
    assert [scan_backend_used("cuda", backend) for backend in ("cuda", "triton")] == ["cuda", "triton"]
    assert scan_backend_used("cuda", "reference") == "reference"
    with pytest.raises(ValueError, match="does not take tensors on 'cpu'"):
        scan_backend_used("cpu", "cuda")
    with pytest.raises(ValueError, match="unknown scan backend 'gpu'; valid: auto, cpu, cuda, triton, reference"):
        scan_backend_used("cpu", "gpu")


def test_a_tensors_device_decides_and_a_meta_tensor_takes_any_backend() -> None:
    assert resolve_backend(torch.zeros(1), "auto") == "cpu"
    assert [resolve_backend(torch.zeros(1, device="meta"), backend) for backend in ("auto", "cuda")] == ["cpu", "cuda"]


@pytest.mark.parametrize(("installed", "used"), [(("cuda", "triton"), "cuda"), (("cuda",), "cuda"), (("triton",), "triton"), ((), "triton")])
def test_on_a_gpu_auto_takes_mamba_ssm_s_kernels_where_they_are_installed_else_triton(
    monkeypatch: pytest.MonkeyPatch, installed: tuple[str, ...], used: str
) -> None:
    monkeypatch.setattr(backends, "is_installed", lambda backend: backend in installed)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # nothing is run
    backends.gpu_backend.cache_clear()
    assert scan_backend_used("cuda", "auto") == used
    backends.gpu_backend.cache_clear()


def test_what_a_gpu_lacks_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "is_installed", lambda backend: backend == "triton")
    assert [missing_kernels("cuda", backend) for backend in ("auto", "triton", "reference")] == [None] * 3
    assert missing_kernels("cpu", "auto") is None
    assert missing_kernels("cuda", "cuda") == (
        "a scan on a GPU needs selective_scan_cuda and causal_conv1d, not installed here: slurm/install_cuda.sh builds mamba-ssm's and "
        "causal-conv1d's kernels; or set it to reference, slow"
    )


def test_a_device_without_a_kernel_needs_the_reference() -> None:
    with pytest.raises(ValueError, match="no scan kernel for device 'mps'; ask for backend 'reference'"):
        scan_backend_used("mps")
    assert scan_backend_used("mps", "reference") == "reference"


def test_triton_takes_tensors_of_a_gpu_and_of_the_cpu_only_in_its_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert [scan_backend_used(device, "triton") for device in ("cuda", "meta")] == ["triton"] * 2
    with pytest.raises(ValueError, match="'triton' does not take tensors on 'cpu'"):
        scan_backend_used("cpu", "triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert scan_backend_used("cpu", "triton") == "triton"


def test_the_cpp_and_the_triton_kernels_run_backwards() -> None:
    x, on_gpu = torch.zeros(1), torch.zeros(1, device="meta")
    assert runs_backwards(x, "auto") and runs_backwards(x, "cpu") and not runs_backwards(x, "reference")
    assert runs_backwards(on_gpu, "triton") and not runs_backwards(on_gpu, "cuda")


def test_torch_compile_takes_the_gpus_backend_as_a_constant() -> None:
    def marked() -> None: ...

    torch.compiler.assume_constant_result(marked)
    assert vars(backends._traced_gpu_backend) == vars(marked)


def test_what_triton_lacks_to_build_its_launcher_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "gcc"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    assert backends.compiler_problem() == "there is no C compiler: neither gcc nor clang is on PATH, and CC is not set"
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sysconfig.get_path", lambda *names: str(tmp_path))
    assert "Python's headers are not installed" in str(backends.compiler_problem())
    (tmp_path / "Python.h").touch()
    assert backends.compiler_problem() is None
    monkeypatch.setenv("CC", "icc")
    assert backends.compiler_problem() == "there is no C compiler: CC is icc, which is no program here"
