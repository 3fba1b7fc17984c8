"""Whether a row is more accurate than another beyond the noise of seeds: moderated t tests of a row against others, on the scale of logits.

Three seeds say little about a row's own noise. On the logit scale the rows of a leaderboard have similar noise, so each variance is raised towards
that of all rows, as far as they are alike (Smyth 2004, Statistical Applications in Genetics and Molecular Biology 3(1), article 3, sections 4 to 6).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analysis.rows import Row, metrics
from analysis.statistics import SETTLED

if TYPE_CHECKING:
    import numpy

DIGITS = 3  # of a p-value, so that the shell and the page compare the same number


@dataclass(frozen=True, kw_only=True)
class Prior:
    """What all rows say of the variance of a row's seeds, on the logit scale: its size, its weight in degrees of freedom, and how many there are."""

    variance: float
    degrees: float  # infinite if the rows do not differ in their variances; 0 if nothing is known
    total: float  # degrees of freedom of all rows together: no test has more


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Logits of accuracies, (rows, seeds), 0 where a seed is missing; which are there; the least deviation that can be measured; the prior."""

    logits: "numpy.ndarray"
    present: "numpy.ndarray"
    least: "numpy.ndarray"  # what one test image changes, (rows)
    prior: Prior


def samples_of(rows: Sequence[Row]) -> Samples:
    """The accuracies of the rows of a key, all with a result."""
    return make_samples([row.seeds for row in rows], [metrics(row.done[0]).test_samples for row in rows])


def make_samples(seeds: Sequence[Mapping[int, float]], images: Sequence[int]) -> Samples:
    """The logits of accuracies in percent, by seed, of rows that were tested on so many images.

    x correct images of n have the logit of (x + 1/2) / (n + 1), which is finite.
    """
    import numpy

    every = sorted({seed for sample in seeds for seed in sample})
    shares = numpy.array([[sample.get(seed, 50.0) / 100 for seed in every] for sample in seeds])
    present = numpy.array([[seed in sample for seed in every] for sample in seeds], dtype=bool)
    n = numpy.maximum(numpy.array(images, dtype=float), 1.0)
    shares = (shares * n[:, None] + 0.5) / (n[:, None] + 1)
    means = (shares * present).sum(1) / present.sum(1)
    logits = numpy.log(shares / (1 - shares)) * present
    least = 1 / ((n + 1) * means * (1 - means))
    _, variances, degrees = spread(logits, present, least)
    settled = degrees >= SETTLED - 1
    return Samples(logits=logits, present=present, least=least, prior=make_prior(variances[settled], degrees[settled]))


def spread(values: "numpy.ndarray", present: "numpy.ndarray", least: "numpy.ndarray") -> "tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]":
    """(mean, variance, degrees of freedom) of the values present in each line. A deviation below `least` was not measured, and counts as `least`."""
    import numpy

    n = present.sum(1)
    with numpy.errstate(divide="ignore", invalid="ignore"):
        mean = (values * present).sum(1) / n
        variance = (((values - mean[:, None]) * present) ** 2).sum(1) / (n - 1)
    return mean, numpy.maximum(variance, least**2), n - 1


def make_prior(variances: "numpy.ndarray", degrees: "numpy.ndarray") -> Prior:
    """The prior of which variances are drawn, by the moments of their logarithms; one that says nothing for fewer than 3 rows."""
    total = float(degrees.sum())
    if len(variances) < SETTLED:
        return Prior(variance=0.0, degrees=0.0, total=math.inf)
    import numpy
    from scipy.optimize import brentq
    from scipy.special import digamma, polygamma

    logs = numpy.log(variances) - digamma(degrees / 2) + numpy.log(degrees / 2)
    differing = float(logs.var(ddof=1) - polygamma(1, degrees / 2).mean())
    if differing <= 1e-6:
        return Prior(variance=float(numpy.exp(logs.mean())), degrees=math.inf, total=total)
    half = float(brentq(lambda x: polygamma(1, x) - differing, 1e-8, 1e8))
    return Prior(variance=float(numpy.exp(logs.mean() + digamma(half) - math.log(half))), degrees=2 * half, total=total)


def moderated(variance: "numpy.ndarray", degrees: "numpy.ndarray", prior: Prior, rows: int) -> "tuple[numpy.ndarray, numpy.ndarray]":
    """(variance, degrees of freedom) with the weight of the prior, of values that are differences of so many rows.

    A variance is raised towards that of all rows but never lowered: else a row that is noisier than all others would often seem the best, by luck.
    """
    import numpy

    if math.isinf(prior.degrees):
        return numpy.maximum(variance, rows * prior.variance), numpy.full_like(variance, prior.total)
    together = prior.degrees + degrees
    drawn = (prior.degrees * rows * prior.variance + degrees * variance) / together
    return numpy.maximum(variance, drawn), numpy.minimum(together, prior.total)


def p_values(samples: Samples, row: int, others: Sequence[int]) -> list[float | None]:
    """For each other row, two-sided p of the test that it is as accurate as `row`, 1 if it is more accurate; None with fewer than 3 seeds.

    Rows with 3 common seeds are paired by seed. Other rows with 3 seeds each are compared by Welch's test.
    """
    chosen = list(others)
    if not chosen:
        return []
    import numpy
    from scipy.special import stdtr

    ours, theirs = samples.logits[row], samples.logits[chosen]
    common = samples.present[row] & samples.present[chosen]
    mean, variance, degrees = spread(ours - theirs, common, numpy.maximum(samples.least[row], samples.least[chosen]))
    with numpy.errstate(divide="ignore", invalid="ignore"):
        variance, df = moderated(variance, degrees, samples.prior, rows=2)
        score = mean / (variance / (degrees + 1)) ** 0.5
        apart, apart_df, settled = welch(samples, row, chosen)
    paired = degrees >= SETTLED - 1
    p = numpy.minimum(1.0, 2 * stdtr(numpy.where(paired, df, apart_df), -numpy.where(paired, score, apart)))
    return [float(f"{value:.{DIGITS}g}") if known else None for value, known in zip(p.tolist(), (paired | settled).tolist(), strict=True)]


def welch(samples: Samples, row: int, chosen: Sequence[int]) -> "tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]":
    """(t, degrees of freedom, whether both have 3 seeds) of Welch's test of a row against others, with moderated variances."""
    lines = [row, *chosen]
    mean, variance, degrees = spread(samples.logits[lines], samples.present[lines], samples.least[lines])
    variance, df = moderated(variance, degrees, samples.prior, rows=1)
    error = variance / (degrees + 1)
    both = error[0] + error[1:]
    settled = (degrees[0] >= SETTLED - 1) & (degrees[1:] >= SETTLED - 1)
    return (mean[0] - mean[1:]) / both**0.5, both**2 / (error[0] ** 2 / df[0] + error[1:] ** 2 / df[1:]), settled
