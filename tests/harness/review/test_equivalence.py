"""The tests of new runs against recorded seeds: against SciPy's, by hand, and by how often they err."""

from math import sqrt
from statistics import variance

import numpy as np
import pytest
from scipy import stats

from harness.review.equivalence import LEVEL, band, below, compared, quantile, runs_needed, spread, welch

SEEDS, RUNS = [97.1, 96.4, 97.9, 96.8], [96.2, 95.1, 96.9]
DRAWS = 20_000


def test_with_two_values_in_both_the_p_values_are_those_of_scipys_welch_test() -> None:
    result = compared(SEEDS, RUNS, 1.0)
    assert result is not None and (result.runs, result.seeds, result.spread_of) == (3, 4, "both")

    def p(shift: float, alternative: str) -> float:
        return float(stats.ttest_ind(np.array(RUNS) + shift, SEEDS, equal_var=False, alternative=alternative).pvalue)

    assert result.p_worse == pytest.approx(p(0, "less"), abs=1e-12)
    assert result.p_beyond == pytest.approx(p(1, "less"), abs=1e-12)
    assert result.p_equivalent == pytest.approx(max(p(1, "greater"), p(-1, "less")), abs=1e-12)
    interval = stats.ttest_ind(RUNS, SEEDS, equal_var=False).confidence_interval(1 - 2 * LEVEL)
    assert (result.low, result.high) == pytest.approx((interval.low, interval.high), abs=1e-9)


def test_one_run_is_held_against_the_prediction_interval_of_the_seeds_by_hand() -> None:
    """Mean 97, variance 1, 3 seeds: the error is sqrt(4/3), and t(0.95, 2) = 2.91999 is a table's."""
    result = compared([96.0, 97.0, 98.0], [95.0], 1.0)
    assert result is not None and result.spread_of == "seeds"
    assert result.difference == -2.0 and result.high == pytest.approx(-2 + 2.91999 * sqrt(4 / 3), abs=1e-4)
    assert result.p_worse == pytest.approx(stats.t.cdf(-2 / sqrt(4 / 3), 2)) and result.p_beyond == pytest.approx(stats.t.cdf(-1 / sqrt(4 / 3), 2))
    assert band([96.0, 97.0, 98.0], 1) == pytest.approx(97 - 2.91999 * sqrt(4 / 3), abs=1e-4)
    assert band([96.0, 97.0, 98.0], 3) == pytest.approx(97 - 2.91999 * sqrt(2 / 3), abs=1e-4)


def test_one_seed_takes_the_spread_of_the_runs_and_one_of_each_has_none() -> None:
    result = compared([97.0], [96.0, 97.0, 98.0], 1.0)
    assert result is not None and result.spread_of == "runs" and result.high == pytest.approx(2.91999 * sqrt(4 / 3), abs=1e-4)
    assert compared([97.0], [97.0], 1.0) is None and compared([97.0, 96.0], [], 1.0) is None and band([97.0], 1) is None


@pytest.mark.parametrize(
    ("runs", "worse", "beyond", "equivalent"),
    [([50.0], 1.0, 1.0, 0.0), ([50.0, 50.0], 1.0, 1.0, 0.0), ([49.5], 0.0, 1.0, 0.0), ([48.0, 48.0], 0.0, 0.0, 1.0), ([53.0], 1.0, 1.0, 1.0)],
)
def test_values_without_spread_are_compared_as_they_are(runs: list[float], worse: float, beyond: float, equivalent: float) -> None:
    result = compared([50.0, 50.0], runs, 1.0)
    assert result is not None and (result.p_worse, result.p_beyond, result.p_equivalent) == (worse, beyond, equivalent)
    assert result.low == result.high == result.difference


def test_the_interval_says_what_the_tests_say() -> None:
    """Equivalent: it lies within the margin. Worse beyond the margin: it lies below. Never both."""
    random = np.random.default_rng(0)
    for m, k, shift in [(3, 3, 0.0), (3, 1, -1.0), (1, 3, -3.0), (5, 2, 1.0), (2, 2, -6.0)] * 20:
        result = compared(random.normal(90, 0.5, m).tolist(), random.normal(90 + shift, 0.5, k).tolist(), 1.0)
        assert result is not None
        assert (result.p_equivalent < LEVEL) is (-1 < result.low and result.high < 1)
        assert (result.p_beyond < LEVEL) is (result.high < -1)
        assert not (result.p_equivalent < LEVEL and result.p_beyond < LEVEL)


def drawn(m: int, k: int, shift: float, std: float, margin: float) -> tuple[float, float]:
    """How often runs fail, and how often they pass, if their mean is off by `shift` (20,000 draws at once, by the formulas of the module)."""
    random = np.random.default_rng(1)
    seeds, runs = random.normal(0, std, (DRAWS, m)), random.normal(shift, std, (DRAWS, k))
    first, second = seeds.var(1, ddof=1) / m if m > 1 else np.zeros(DRAWS), runs.var(1, ddof=1) / k if k > 1 else np.zeros(DRAWS)
    if m > 1 and k > 1:
        error, degrees = np.sqrt(first + second), (first + second) ** 2 / (first**2 / (m - 1) + second**2 / (k - 1))
    else:
        error, degrees = np.sqrt((first * m + second * k) * (1 / m + 1 / k)), np.full(DRAWS, max(m, k) - 1)
    half, difference = stats.t.ppf(1 - LEVEL, degrees) * error, runs.mean(1) - seeds.mean(1)
    for i in range(0, DRAWS, 4000):  # the module itself agrees
        result = compared(seeds[i].tolist(), runs[i].tolist(), margin)
        assert result is not None and (result.low, result.high) == pytest.approx((difference[i] - half[i], difference[i] + half[i]), abs=1e-9)
    return float((difference + half < -margin).mean()), float(((difference - half > -margin) & (difference + half < margin)).mean())


@pytest.mark.parametrize(("m", "k"), [(3, 1), (3, 3), (5, 2), (1, 3), (10, 2), (10, 5)])
def test_neither_a_true_record_fails_nor_a_false_one_passes_more_often_than_the_level(m: int, k: int) -> None:
    """Welch's degrees of freedom are an approximation: with two runs against many seeds the rate is 7% in place of 5%."""
    welchs = 0.025 if min(m, k) == 2 else 0.0
    above = LEVEL + welchs + 3 * sqrt(LEVEL * (1 - LEVEL) / DRAWS)  # what 20,000 draws may show of a rate of 5%
    assert drawn(m, k, shift=0.0, std=0.5, margin=1.0)[0] < 0.01, "runs of the recorded mean fail"
    assert drawn(m, k, shift=-1.0, std=0.5, margin=1.0)[0] <= above, "runs at the margin, which is allowed, fail"
    assert drawn(m, k, shift=-1.0, std=0.3, margin=1.0)[1] <= above, "runs worse by the margin pass"
    assert drawn(m, k, shift=1.0, std=0.3, margin=1.0)[1] <= above, "runs better by the margin pass"


def test_what_is_true_is_told_once_there_are_seeds_enough() -> None:
    assert drawn(5, 5, shift=0.0, std=0.4, margin=1.0)[1] > 0.9, "equal means pass"
    assert drawn(3, 3, shift=-3.0, std=0.4, margin=1.0)[0] > 0.9, "three points less fail"


def test_the_number_of_runs_that_is_suggested_is_the_first_that_would_do() -> None:
    seeds = [96.5, 97.0, 97.5, 97.0]
    needed = runs_needed(seeds, [97.0], 0.7)
    assert needed is not None
    pooled = variance(seeds)

    def half(k: int) -> float:
        of = welch(pooled / 4, 4, pooled / k, k)
        return quantile(of.degrees) * of.error

    assert half(needed) < 0.7 <= half(needed - 1) and needed > 2
    assert runs_needed(seeds, [97.0], 0.01) is None, "the spread of the recorded seeds alone is more"
    assert runs_needed([97.0], [97.0], 1.0) is None, "nothing is known of the spread"
    assert (runs_needed([97.0], [96.9, 97.1], 1.0) or 0) > 2


def test_rounding_is_no_spread() -> None:
    of = spread([0.1 + 0.2, 0.3], [0.3])
    assert of is not None and of.error == 0.0 and below(-1e-12, of) == 1.0
