"""Sparsity schedules: pure functions of p, the fraction of the schedule that has passed, in [0, 1]. No torch."""

import math
from typing import Literal

Schedule = Literal["cosine", "cubic"]


def cosine(p: float, initial: float, final: float) -> float:
    """s_i + (s_f - s_i) (1 - cos(pi p)) / 2: slow, then fast, then slow."""
    return initial + (final - initial) * (1.0 - math.cos(math.pi * p)) / 2.0


def cubic(p: float, initial: float, final: float) -> float:
    """s_f + (s_i - s_f) (1 - p)^3: fast while there are many weights to drop, then slower. Zhu and Gupta, arXiv 1710.01878, eq. 1."""
    return final + (initial - final) * (1.0 - p) ** 3


SCHEDULES = {"cosine": cosine, "cubic": cubic}


def sparsity_at(schedule: Schedule, p: float, initial: float, final: float) -> float:
    """The schedule's sparsity at p, clamped to [0, 1]. The ends are exact: `initial` at 0 and `final` at 1."""
    if p <= 0.0:
        return initial
    return final if p >= 1.0 else SCHEDULES[schedule](p, initial, final)
