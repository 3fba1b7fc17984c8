import torch

from jobs.memory import forget_peak, peak_bytes

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
