"""Statistics over seeds. Intervals and p-values come from SciPy, imported when first needed: it takes a second."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean, stdev

LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A sample in short. `std` is the sample's (n - 1); `std`, `low` and `high` (the 95% t interval of the mean) are None for one value."""

    mean: float
    std: float | None
    n: int
    low: float | None
    high: float | None


def summarize(values: Sequence[float]) -> Summary | None:
    """Mean, standard deviation and 95% t interval of the mean; None for no values."""
    n = len(values)
    if n == 0:
        return None
    mean = fmean(values)
    if n == 1:
        return Summary(mean=mean, std=None, n=1, low=None, high=None)
    std = stdev(values)
    half = t_quantile(n - 1) * std / n**0.5
    return Summary(mean=mean, std=std, n=n, low=mean - half, high=mean + half)


@cache
def t_quantile(degrees: int) -> float:
    """The two-sided 95% quantile of Student's t."""
    from scipy.stats import t

    return float(t.ppf((1 + LEVEL) / 2, degrees))


def differences(ours: Mapping[int, float], theirs: Mapping[int, float]) -> list[float]:
    """ours - theirs for every seed that both have, by seed."""
    return [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]
