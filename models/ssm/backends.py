"""The backends of the scan and the convolution, by name. The backend that is asked for runs. `auto` goes by the tensors' device: on CPUs `cpu`, on
GPUs `cuda` where mamba-ssm's and causal-conv1d's kernels are installed and right, else `triton`.
"""

import os
import shutil
import sysconfig
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

BACKENDS = ("auto", "cpu", "cuda", "triton", "reference")
PACKAGES = {"cuda": ("selective_scan_cuda", "causal_conv1d"), "triton": ("triton",)}  # what the backends of a GPU import
INSTALL = {"cuda": "slurm/install_cuda.sh builds mamba-ssm's and causal-conv1d's kernels", "triton": "pip install triton"}


def interpreted() -> bool:
    """True if Triton runs its kernels in NumPy, on tensors of the CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def is_installed(backend: str) -> bool:
    """True if the packages of a GPU's backend are installed."""
    return all(find_spec(package) for package in PACKAGES[backend])


@cache
def gpu_backend() -> str:
    """`cuda` or `triton`: what `auto` runs on the GPU of this process. Says why where kernels that are installed are passed over."""
    if not is_installed("cuda"):
        return "triton"
    from models.ssm.check import fault_of

    fault = fault_of("cuda", "cuda") if torch.cuda.is_available() else None
    if fault:
        print(f"{fault}; the Triton kernels run instead", flush=True)
    return "triton" if fault else "cuda"


def _traced_gpu_backend() -> str:
    return gpu_backend()


# What torch.compiler.assume_constant_result does, which would import torch's compiler: a second in every launch.
_traced_gpu_backend._dynamo_marked_constant = True  # type: ignore[attr-defined]


def missing_kernels(device_type: str, backend: str) -> str | None:
    """Which packages a scan on such a device needs and this environment lacks, with the remedy; None if it lacks none. Needs no GPU."""
    if device_type != "cuda" or backend in ("reference", "cpu"):
        return None
    wanted = ("cuda", "triton") if backend == "auto" else (backend,)
    if any(is_installed(name) for name in wanted):
        return None
    absent = " or ".join(" and ".join(PACKAGES[name]) for name in wanted)
    return f"a scan on a GPU needs {absent}, not installed here: {'; or '.join(INSTALL[name] for name in wanted)}; or set it to reference, slow"


def compiler_problem() -> str | None:
    """What Triton lacks on this machine to build its launcher, at the first call of a kernel; None if it has all (triton/runtime/build.py)."""
    compiler = os.environ.get("CC") or next((name for name in ("gcc", "clang") if shutil.which(name)), None)
    if compiler is None:
        return "there is no C compiler: neither gcc nor clang is on PATH, and CC is not set"
    if shutil.which(compiler) is None:
        return f"there is no C compiler: CC is {compiler}, which is no program here"
    header = Path(sysconfig.get_path("include", "posix_prefix"), "Python.h")
    return None if header.exists() else f"there is no {header}: Python's headers are not installed (python3-dev)"


def scan_backend_used(device_type: str, backend: str = "auto") -> str:
    """The backend that a scan on such a device runs: `cpu`, `cuda`, `triton` or `reference`.

    ValueError: an unknown name, or a kernel of another device.
    """
    if backend not in BACKENDS:
        raise ValueError(f"unknown scan backend {backend!r}; valid: {', '.join(BACKENDS)}")
    if backend == "reference":
        return backend
    if device_type not in ("cpu", "cuda", "meta"):
        raise ValueError(f"no scan kernel for device {device_type!r}; ask for backend 'reference'")
    if backend == "auto":
        return _traced_gpu_backend() if device_type == "cuda" else "cpu"
    if backend == "triton" and (device_type == "cuda" or interpreted()):
        return backend
    if device_type not in (backend, "meta"):
        raise ValueError(f"scan backend {backend!r} does not take tensors on {device_type!r}; ask for 'auto' or 'reference'")
    return backend


def resolve_backend(tensor: Tensor, backend: str) -> str:
    """`scan_backend_used` on a tensor's device."""
    return scan_backend_used(tensor.device.type, backend)


def runs_backwards(tensor: Tensor, backend: str) -> bool:
    """True if the kernels scan a reversed sequence without a copy, as the C++ and the Triton kernels do. Otherwise a mixer flips once, around all of
    its kernels.
    """
    return resolve_backend(tensor, backend) in ("cpu", "triton")
