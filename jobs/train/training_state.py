"""What a stage knows about its own progress, and the seeds that it draws from."""

import hashlib
import math
from dataclasses import dataclass


@dataclass(kw_only=True)
class TrainingState:
    """The part of a checkpoint that is no tensor. (A checkpoint calls it "tally", as version 0.1 did.)"""

    step: int = 0  # optimizer steps finished
    epoch_loss: float = 0.0  # sum over the steps of the epoch
    epoch_steps: int = 0
    line_loss: float = 0.0  # sum over the steps since the last line of metrics
    line_steps: int = 0
    last_loss: float | None = None
    train_loss: float = math.nan  # mean over the last finished epoch
    val_top1: float | None = None
    val_top1_pruned: float | None = None  # after the method pruned trained weights, before the first step
    stepping_s: float = 0.0
    stepped: int = 0  # optimizer steps behind stepping_s
    elapsed_s: float = 0.0
    joules: float | None = 0.0  # of this rank's device
    peak_bytes: int = 0  # of this rank


def derived_seed(seed: int, *words: object) -> int:
    """A seed below 2^31 for one purpose: a pure function of the cell's seed and the purpose's name."""
    return int.from_bytes(hashlib.sha256(repr((seed, *words)).encode()).digest()[:4], "big") >> 1
