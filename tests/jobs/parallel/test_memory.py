"""Freed memory is kept and causes no page faults when it is taken again, and the peak is that of memory in use."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from jobs.parallel.memory import forget_peak, peak_bytes

CPU = torch.device("cpu")
SINCE_RESET, WHOLE_LIFE = "peak memory: resident set of the process", "peak memory: resident set of the process over its whole life"
FAULTS = """
import resource, sys, torch
from jobs.parallel.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.empty(50_000_000, dtype=torch.uint8).fill_(1) for _ in range(3)]
    del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(*(faults() for _ in range(12)))
"""


def fewest_faults(how: str) -> int:
    """Page faults of filling three tensors of 50 MB, in the best of twelve rounds of a process of its own."""
    printed = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True).stdout
    return min(map(int, printed.split()))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_memory_that_was_freed_causes_no_faults_when_it_is_taken_again() -> None:
    assert 10 * fewest_faults("keep") < fewest_faults("default"), "whatever the size of a page"


def linux_resets_the_peak() -> bool:
    """True where this user may reset the peak of a process."""
    try:
        Path("/proc/self/clear_refs").write_bytes(b"5")
    except OSError:
        return False
    return True


def test_the_peak_is_that_of_what_was_in_use_at_once_and_is_forgotten() -> None:
    note = forget_peak(CPU)
    before = peak_bytes(CPU)
    block = torch.ones(64 << 20, dtype=torch.uint8)
    held = peak_bytes(CPU)
    del block
    assert min(held, peak_bytes(CPU)) - before > 32 << 20  # Linux counts pages by the batch, so the two may differ a little
    forget_peak(CPU)
    assert note == (SINCE_RESET if linux_resets_the_peak() else WHOLE_LIFE)
    assert (peak_bytes(CPU) < held - (32 << 20)) == linux_resets_the_peak()


PEAK = """
import torch
from jobs.parallel.memory import forget_peak, keep_freed_memory, peak_bytes
keep_freed_memory()
cpu = torch.device("cpu")
blocks = [torch.ones(8 << 20, dtype=torch.uint8) for _ in range(16)]
held = peak_bytes(cpu)
del blocks
print(forget_peak(cpu), held - peak_bytes(cpu), sep=";")
"""


def test_memory_that_was_freed_and_kept_does_not_count() -> None:
    root = Path(__file__).parents[3]
    note, given_back = subprocess.run([sys.executable, "-c", PEAK], cwd=root, capture_output=True, text=True, check=True).stdout.split(";")
    assert note == (SINCE_RESET if linux_resets_the_peak() else WHOLE_LIFE)
    assert (int(given_back) > 64 << 20) == linux_resets_the_peak()
