"""Whether new runs are worse than recorded seeds, or equivalent to them: one-sided t tests and two one-sided tests.

With two values or more in both samples the variances may differ (Welch 1947, Biometrika 34). A sample of one value has no variance, and takes that of
the other sample: with one new run this asks whether it lies in the prediction interval of the recorded seeds. Equivalence within a margin is shown
by two one-sided tests (Schuirmann 1987, Journal of Pharmacokinetics and Biopharmaceutics 15), that is, by an interval of the difference at 1 - 2 *
level which lies within the margin. Welch's degrees of freedom are an approximation: of two runs against ten seeds, 7% err where 5% are meant.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, inf
from statistics import fmean, variance

from jobs.experiment.verification import Comparison

LEVEL = 0.05
MARGIN = 1.0  # points of top-1
MOST_RUNS = 50  # that are suggested
SAME = 1e-9  # points; a smaller standard error is one of rounding


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The standard error of a difference of two means, and its degrees of freedom; 0 and infinite where all values are equal."""

    error: float
    degrees: float


def spread(seeds: Sequence[float], runs: Sequence[float]) -> Spread | None:
    """The spread of the difference of two means; None if neither sample has two values."""
    m, k = len(seeds), len(runs)
    if m >= 2 and k >= 2:
        return welch(variance(seeds) / m, m, variance(runs) / k, k)
    if m < 2 and k < 2:
        return None
    known = seeds if m >= 2 else runs
    error = (variance(known) * (1 / m + 1 / k)) ** 0.5
    return Spread(error=error, degrees=len(known) - 1) if error > SAME else Spread(error=0.0, degrees=inf)


def welch(first: float, m: int, second: float, k: int) -> Spread:
    """The spread from the squared standard errors of two means, of m and of k values, by Welch and Satterthwaite."""
    both = first + second
    if both**0.5 <= SAME:
        return Spread(error=0.0, degrees=inf)
    return Spread(error=both**0.5, degrees=both**2 / (first**2 / (m - 1) + second**2 / (k - 1)))


def compared(seeds: Sequence[float], runs: Sequence[float], margin: float) -> Comparison | None:
    """The tests of new runs against recorded seeds, in points of top-1; None without runs, or if neither sample has two values."""
    if not runs or (of := spread(seeds, runs)) is None:
        return None
    difference = fmean(runs) - fmean(seeds)
    half = quantile(of.degrees) * of.error
    return Comparison(
        runs=len(runs),
        seeds=len(seeds),
        difference=difference,
        low=difference - half,
        high=difference + half,
        p_worse=below(difference, of),
        p_beyond=below(difference + margin, of),
        p_equivalent=max(below(-difference - margin, of), below(difference - margin, of)),
        spread_of="both" if len(seeds) >= 2 and len(runs) >= 2 else "seeds" if len(seeds) >= 2 else "runs",
    )


def below(value: float, of: Spread) -> float:
    """The one-sided p of the hypothesis that the mean behind an observed value is 0 or more. Without any spread it is 0 or 1."""
    if of.error == 0.0:
        return 0.0 if value < -SAME else 1.0
    from scipy.special import stdtr

    return float(stdtr(of.degrees, value / of.error))


def quantile(degrees: float) -> float:
    """The one-sided quantile of Student's t at 1 - LEVEL; 0 for infinite degrees, which stand for no spread."""
    if degrees == inf:
        return 0.0
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 1 - LEVEL))


def band(seeds: Sequence[float], runs: int) -> float | None:
    """The top-1 under which the mean of so many new runs falls with probability LEVEL, by the spread of the recorded seeds; None for one seed."""
    if len(seeds) < 2:
        return None
    error: float = (variance(seeds) * (1 / len(seeds) + 1 / runs)) ** 0.5
    return fmean(seeds) - quantile(len(seeds) - 1) * error


def runs_needed(seeds: Sequence[float], runs: Sequence[float], margin: float) -> int | None:
    """How many new runs would show equivalence if their mean were that of the recorded seeds and the spread stayed; None if MOST_RUNS would not."""
    known = [sample for sample in (seeds, runs) if len(sample) >= 2]
    if not known:
        return None
    pooled = fsum(variance(sample) * (len(sample) - 1) for sample in known) / sum(len(sample) - 1 for sample in known)
    m = len(seeds)
    for k in range(max(len(runs), 1) + 1, MOST_RUNS + 1):
        of = welch(pooled / m, m, pooled / k, k) if m >= 2 else Spread(error=(pooled * (1 + 1 / k)) ** 0.5, degrees=k - 1)
        if quantile(of.degrees) * of.error < margin:
            return k
    return None
