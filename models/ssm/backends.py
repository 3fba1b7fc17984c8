"""The backends of the scan and the convolution, by name. What is asked for is what runs: `auto` goes by the tensors' device, never by what is
installed.
"""

from torch import Tensor

BACKENDS = ("auto", "cpu", "cuda", "reference")


def scan_backend_used(device_type: str, backend: str = "auto") -> str:
    """`cpu`, `cuda` or `reference`: what a scan on such a device runs. ValueError: unknown name, or a kernel that does not serve the device."""
    if backend not in BACKENDS:
        raise ValueError(f"unknown scan backend {backend!r}; valid: {', '.join(BACKENDS)}")
    if backend == "reference":
        return backend
    if device_type not in ("cpu", "cuda", "meta"):
        raise ValueError(f"no scan kernel for device {device_type!r}; ask for backend 'reference'")
    if backend == "auto":
        return "cuda" if device_type == "cuda" else "cpu"
    if device_type not in (backend, "meta"):
        raise ValueError(f"scan backend {backend!r} does not take tensors on {device_type!r}; ask for 'auto' or 'reference'")
    return backend


def resolve_backend(tensor: Tensor, backend: str) -> str:
    """`scan_backend_used` for a tensor's device."""
    return scan_backend_used(tensor.device.type, backend)


def runs_backwards(tensor: Tensor, backend: str) -> bool:
    """Whether the kernels take a reversed sequence as it is (the C++ ones do); where they flip it, a mixer flips once around all of them."""
    return resolve_backend(tensor, backend) == "cpu"
