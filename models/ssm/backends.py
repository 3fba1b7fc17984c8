"""The backends of the scan and the convolution, by name. The backend that is asked for runs; `auto` depends only on the tensors' device, never on
the packages that are installed.
"""

import os
from importlib.util import find_spec

from torch import Tensor

BACKENDS = ("auto", "cpu", "cuda", "triton", "reference")


def interpreted() -> bool:
    """True if Triton runs its kernels in NumPy, on tensors of the CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def has_triton() -> bool:
    """True if Triton is installed."""
    return find_spec("triton") is not None


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
        return "cuda" if device_type == "cuda" else "cpu"
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
