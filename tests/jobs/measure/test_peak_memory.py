import subprocess
import sys
from pathlib import Path

import torch

from jobs.parallel.memory import forget_peak, peak_bytes

SCRIPT = """
import torch
from jobs.parallel.memory import keep_freed_memory
from jobs.parallel.memory import forget_peak, peak_bytes
keep_freed_memory()
cpu = torch.device("cpu")
blocks = [torch.ones(8 << 20, dtype=torch.uint8) for _ in range(16)]
held = peak_bytes(cpu)
del blocks
print(forget_peak(cpu), held - peak_bytes(cpu), sep=";")
"""
CPU = torch.device("cpu")


def test_the_peak_is_that_of_what_was_in_use_at_once_and_is_forgotten() -> None:
    note = forget_peak(CPU)
    before = peak_bytes(CPU)
    block = torch.ones(64 << 20, dtype=torch.uint8)
    held = peak_bytes(CPU)
    del block
    assert min(held, peak_bytes(CPU)) - before > 32 << 20  # Linux counts pages by the batch, so the two may differ a little
    forget_peak(CPU)
    assert (peak_bytes(CPU) < held - (32 << 20)) == (note == "peak memory: resident set of the process")


def test_memory_that_was_freed_and_kept_does_not_count() -> None:
    root = Path(__file__).parents[3]
    note, given_back = subprocess.run([sys.executable, "-c", SCRIPT], cwd=root, capture_output=True, text=True, check=True).stdout.split(";")
    assert int(given_back) > 64 << 20 or note != "peak memory: resident set of the process"
