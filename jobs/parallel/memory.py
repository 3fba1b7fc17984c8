"""What a process keeps of the memory that it frees."""

import ctypes

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
