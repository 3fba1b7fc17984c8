"""Memory of a process: freed memory is kept for later tensors, given back between attempts, and its peak is measured."""

import ctypes
import gc
from pathlib import Path

import torch

# From glibc's malloc.h. Tensors below HEAP_BYTES come from the heap; up to KEPT_BYTES may lie free at its end before they go back to the system.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
HEAP_BYTES, KEPT_BYTES = 2**30, 2**31 - 1


# keeping and giving back


def keep_freed_memory() -> bool:
    """Keeps freed memory for later tensors. Returns False where the C library has no such setting (it is not glibc).

    A training step on a CPU frees and takes the same gigabytes again. Every page of 4 KB that went back to the system in between costs a page fault
    and is filled with zeros: up to a tenth of a step of vim_tiny on a virtual machine. The peak of the process hardly changes.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return all(mallopt(name, value) == 1 for name, value in ((M_MMAP_THRESHOLD, HEAP_BYTES), (M_TRIM_THRESHOLD, KEPT_BYTES)))


def give_back_freed() -> None:
    """Returns the freed memory that glibc keeps to the system: it counts as resident although nothing uses it. No effect with another C library."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        return


def free_unused() -> None:
    """Frees what a failed attempt at a stage held, also on the GPU."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


# the peak


def forget_peak(device: torch.device) -> str:
    """Resets the peak and returns a note on what is measured. Where Linux does not allow the reset, that is the process's whole life."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return "peak memory: allocated on the GPU"
    give_back_freed()
    try:
        Path("/proc/self/clear_refs").write_bytes(b"5")
    except OSError:
        return "peak memory: resident set of the process over its whole life"
    return "peak memory: resident set of the process"


def peak_bytes(device: torch.device) -> int:
    """The peak since `forget_peak`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace").splitlines()
    return 1024 * int(next(line for line in status if line.startswith("VmHWM")).split()[1])
