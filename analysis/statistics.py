"""Statistics over seeds. Intervals and p-values come from SciPy when first needed: `scipy.stats` takes a second, `scipy.special` a tenth of one."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import fsum
from statistics import fmean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy

LEVEL = 0.95
SETTLED = 3  # seeds from which a rank has an interval
TOGETHER = 64  # rows that are compared at once with the first row of a group
SAME = 1e-9  # points; differences within this range differ only by rounding


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Summary of a sample. `std` is the sample's (n - 1), None if n is 1; `low` and `high` are the 95% interval of the mean, None if n is below 3."""

    mean: float
    std: float | None
    n: int
    low: float | None
    high: float | None


def summarize(values: Sequence[float]) -> Summary | None:
    """Summary of differences of accuracies, in points: 95% t interval of the mean, cut at -100 and 100; None for no values."""
    n, mean, std = moments(values)
    if n < SETTLED or std is None:
        return Summary(mean=mean, std=std, n=n, low=None, high=None) if n else None
    half = t_quantile(n - 1) * std / n**0.5
    return Summary(mean=mean, std=std, n=n, low=max(-100.0, mean - half), high=min(100.0, mean + half))


def summarize_accuracies(percents: Sequence[float], images: int) -> Summary | None:
    """Summary of accuracies in percent, each on `images` test images: the interval is `wilson_interval`; None for no values."""
    n, mean, std = moments(percents)
    if n < SETTLED or std is None:
        return Summary(mean=mean, std=std, n=n, low=None, high=None) if n else None
    low, high = wilson_interval(mean / 100, std / 100, n, images)
    return Summary(mean=mean, std=std, n=n, low=100 * low, high=100 * high)


def moments(values: Sequence[float]) -> tuple[int, float, float | None]:
    """(number, mean, standard deviation) of values; the mean of none is 0."""
    n = len(values)
    mean = fmean(values) if n else 0.0
    return n, mean, (fsum((value - mean) ** 2 for value in values) / (n - 1)) ** 0.5 if n > 1 else None


def wilson_interval(mean: float, std: float, n: int, images: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share, at the effective sample size of n seeds. It holds the mean and stays within 0 and 1.

    `mean`, `std`: of n shares of `images` images. The seeds are clusters: the effective sample size is that of a binomial share with standard error
    std / sqrt(n), times (z / t)^2 for the few seeds, and at most n * images (Korn and Graubard 1998, Survey Methodology 24(2), for Clopper-Pearson's
    interval; Dean and Pagano 2015, Journal of Survey Statistics and Methodology 3(4), for Wilson's).
    """
    z, binomial = normal_quantile(), mean * (1 - mean)
    size = float(n * images)
    if std > 0:
        size = min(size, binomial * n / std**2 * (z / t_quantile(n - 1)) ** 2)
    centre = (mean + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * (binomial / size + z**2 / (4 * size**2)) ** 0.5
    return max(0.0, min(centre - half, mean)), min(1.0, max(centre + half, mean))


@cache
def normal_quantile() -> float:
    """The two-sided 95% quantile of the normal distribution."""
    from scipy.special import ndtri

    return float(ndtri((1 + LEVEL) / 2))


@cache
def t_quantile(degrees: int) -> float:
    """The two-sided 95% quantile of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + LEVEL) / 2))


def differences(ours: Mapping[int, float], theirs: Mapping[int, float]) -> list[float]:
    """ours - theirs for every common seed, sorted by seed, rounded to billionths, so that rounding errors are 0."""
    return [round(ours[seed] - theirs[seed], 9) for seed in sorted(ours.keys() & theirs.keys())]


def paired_p_values(samples: Sequence[Sequence[float]]) -> list[float | None]:
    """Two-sided p of the t test that the mean of each sample of paired differences is 0; None below 2 pairs, or if all differences are equal."""
    return tested(samples, least=2, test=t_test)


def signed_rank_p_values(samples: Sequence[Sequence[float]]) -> list[float | None]:
    """Two-sided p of Wilcoxon's signed-rank test of each sample; None below 6 pairs, where it cannot fall under 0.05."""
    return tested(samples, least=6, test=signed_rank_test)


def t_test(values: "numpy.ndarray") -> "numpy.ndarray":
    """Two-sided p of Student's t test that the mean of each line is 0. values (lines, n)."""
    from scipy.special import stdtr

    n = values.shape[1]
    score = values.mean(1) / (values.var(1, ddof=1) / n) ** 0.5
    p: numpy.ndarray = 2 * stdtr(n - 1, -abs(score))
    return p


def signed_rank_test(values: "numpy.ndarray") -> "numpy.ndarray":
    """Two-sided p of Wilcoxon's signed-rank test of each line. values (lines, n)."""
    from scipy.stats import wilcoxon

    p: numpy.ndarray = wilcoxon(values, axis=1).pvalue
    return p


def tested(samples: Sequence[Sequence[float]], *, least: int, test: Callable[["numpy.ndarray"], "numpy.ndarray"]) -> list[float | None]:
    """The p-values of the samples with at least `least` values that are not all equal, else None. The test gets all samples of a size together."""
    p_values: list[float | None] = [None] * len(samples)
    by_size: dict[int, list[int]] = defaultdict(list)
    for i, sample in enumerate(samples):
        if len(sample) >= least and max(sample) - min(sample) > SAME:
            by_size[len(sample)].append(i)
    if not by_size:
        return p_values
    import numpy

    for chosen in by_size.values():
        for i, p in zip(chosen, test(numpy.array([samples[i] for i in chosen])), strict=True):
            p_values[i] = float(p)
    return p_values


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """The p-values after Holm's step-down correction for their number (Holm 1979); None stays None and is not counted."""
    ascending = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for k, (p, i) in enumerate(ascending):
        largest = max(largest, min(1.0, (len(ascending) - k) * p))
        corrected[i] = largest
    return corrected


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A row's rank interval and tie group, from the noise of its seeds."""

    low: int  # 95% interval of the rank, best end
    high: int
    tie: int  # group, from 1; its rows do not differ significantly from its first


def standings(samples: Sequence[Mapping[int, float]], draws: int = 2000) -> list[Standing | None]:
    """Rank intervals and tie groups of ranked rows, each given as accuracy by seed; None for a row with fewer than 3 seeds.

    Seeds are resampled for all rows together, which keeps pairs paired. A resampled mean of few seeds varies too little, so its deviation is widened
    by t(n - 1) / z * sqrt(n / (n - 1)) (the expanded percentile interval, Hesterberg 2015, The American Statistician 69(4), section 3.2).
    """
    if max(map(len, samples), default=0) < SETTLED:
        return [None] * len(samples)
    import numpy
    from scipy.stats import rankdata

    seeds = sorted({seed for sample in samples for seed in sample})
    sizes = numpy.array([len(sample) for sample in samples])
    values = numpy.array([[sample.get(seed, 0.0) for seed in seeds] for sample in samples])
    present = numpy.array([[seed in sample for seed in seeds] for sample in samples], dtype=float)
    means = values.sum(1) / sizes
    random = numpy.random.default_rng(0)
    counts = random.multinomial(len(seeds), numpy.full(len(seeds), 1 / len(seeds)), size=fewer(draws, len(samples)))
    weights = present @ counts.T
    resampled = numpy.where(weights > 0, (values * present) @ counts.T / numpy.maximum(weights, 1), means[:, None])
    normal = normal_quantile()
    wider = numpy.array([t_quantile(n - 1) / normal * (n / (n - 1)) ** 0.5 if n > 1 else 0.0 for n in sizes.tolist()])
    means_drawn = means[:, None] + wider[:, None] * (resampled - means[:, None])
    ranks = rankdata(-means_drawn.round(9), method="min", axis=0)
    tail = 100 * (1 - LEVEL) / 2
    low = numpy.percentile(ranks, tail, axis=1, method="lower")
    high = numpy.percentile(ranks, 100 - tail, axis=1, method="higher")
    groups = tie_groups(means_drawn, sizes)
    return [Standing(low=int(low[i]), high=int(high[i]), tie=groups[i]) if sizes[i] >= SETTLED else None for i in range(len(samples))]


def tie_groups(means: "numpy.ndarray", sizes: "numpy.ndarray") -> list[int]:
    """The group of each ranked row. A row opens a new group if the 95% interval of (the mean of the group's first row - its own mean) is above 0."""
    import numpy

    settled = numpy.flatnonzero(sizes >= SETTLED)
    opens = numpy.zeros(len(means), dtype=int)
    position = 1
    while position < len(settled):
        first = settled[position - 1]
        for start in range(position, len(settled), TOGETHER):
            chunk = settled[start : start + TOGETHER]
            apart = numpy.flatnonzero(numpy.percentile(means[first] - means[chunk], 100 * (1 - LEVEL) / 2, axis=1) > 0)
            if len(apart):
                break
        else:
            break
        position = start + int(apart[0]) + 1
        opens[settled[position - 1]] = 1
    groups: list[int] = (1 + numpy.cumsum(opens)).tolist()
    return groups


def fewer(draws: int, rows: int) -> int:
    """The number of draws that keeps their table under 5 million numbers, but at least 200."""
    return max(200, min(draws, 5_000_000 // max(rows, 1)))
