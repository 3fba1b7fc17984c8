"""Whether two samples come from one distribution, for tests with fixed seeds."""

from collections import Counter
from typing import Any

import numpy as np
from scipy.stats import chi2


def alike(first: Counter[Any], second: Counter[Any]) -> bool:
    """Chi-square of two samples at a level of one in a million, rare outcomes together."""
    common = [key for key in first | second if first[key] + second[key] >= 10]
    pairs = [(first[key], second[key]) for key in common]
    pairs.append((first.total() - sum(a for a, _ in pairs), second.total() - sum(b for _, b in pairs)))
    counts = [(a, b, a + b) for a, b in pairs if a + b]
    up, down = np.sqrt(second.total() / first.total()), np.sqrt(first.total() / second.total())
    statistic = sum((up * a - down * b) ** 2 / both for a, b, both in counts)
    return bool(statistic < chi2.ppf(1 - 1e-6, max(1, len(counts) - 1)))
