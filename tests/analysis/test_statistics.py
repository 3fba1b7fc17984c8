import numpy
import pytest
import scipy.stats

from analysis.statistics import differences, summarize


@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_the_interval_is_scipys_t_interval(n: int) -> None:
    values = numpy.random.default_rng(n).normal(90, 2, n)
    got = summarize(list(values))
    low, high = scipy.stats.t.interval(0.95, n - 1, loc=values.mean(), scale=scipy.stats.sem(values))
    assert got is not None
    assert (got.mean, got.std, got.low, got.high) == pytest.approx((values.mean(), values.std(ddof=1), low, high), rel=1e-12)


def test_one_value_has_neither_spread_nor_interval() -> None:
    got = summarize([90.0])
    assert got is not None and (got.mean, got.n) == (90.0, 1)
    assert got.std is got.low is got.high is None


def test_no_values_have_no_summary() -> None:
    assert summarize([]) is None


def test_the_interval_covers_the_true_mean_95_times_in_100() -> None:
    draws = numpy.random.default_rng(0).normal(90, 2, (4000, 3))
    covered = sum(got.low <= 90 <= got.high for row in draws if (got := summarize(list(row))) and got.low is not None and got.high is not None)
    assert covered / 4000 == pytest.approx(0.95, abs=4 * (0.95 * 0.05 / 4000) ** 0.5)


def test_differences_pair_by_seed_and_drop_what_has_no_partner() -> None:
    assert differences({2: 5.0, 0: 1.0, 7: 9.0}, {0: 0.5, 2: 4.0, 3: 8.0}) == [0.5, 1.0]
