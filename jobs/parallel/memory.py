"""What a process keeps of the memory that it frees."""

import ctypes
import gc
from pathlib import Path

import torch

# Of glibc's malloc.h: below what size a tensor comes from the heap, and how much may lie free at the heap's end before it goes back to the system.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
HEAP_BYTES, KEPT_BYTES = 2**30, 2**31 - 1


def keep_freed_memory() -> bool:
    """True where freed memory is now kept for the tensors to come, False where the C library has no such setting (it is not glibc).

    A training step on a CPU frees and takes the same gigabytes again, and every page of 4 KB that went back to the system in between costs a fault and
    is filled with zeros: up to a tenth of a step of vim_tiny on a virtual machine, for nothing. The most that a process holds hardly changes.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return all(mallopt(name, value) == 1 for name, value in ((M_MMAP_THRESHOLD, HEAP_BYTES), (M_TRIM_THRESHOLD, KEPT_BYTES)))


def forget_peak(device: torch.device) -> str:
    """Starts the peak of memory anew and says what will be measured; where Linux forbids it, the peak is that of the process's whole life."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return "peak memory: allocated on the GPU"
    give_back_freed()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return "peak memory: resident set of the process over its whole life"
    return "peak memory: resident set of the process"


def give_back_freed() -> None:
    """Returns to the system what glibc keeps of freed memory: it is resident, and nobody uses it. Does nothing with another C library."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        return


def peak_bytes(device: torch.device) -> int:
    """The peak since `forget_peak`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in status if line.startswith("VmHWM")).split()[1])


def free_unused() -> None:
    """Frees what a failed attempt held, on the GPU too."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
