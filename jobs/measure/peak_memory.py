"""The most memory that was in use: allocated on a GPU, resident on a CPU."""

import ctypes
from pathlib import Path

import torch


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
