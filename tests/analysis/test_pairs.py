"""Tests of a row against others: against SciPy, closed forms, and simulations of known truth."""

import math

import numpy
import pytest
import scipy.stats
from scipy.special import polygamma

from analysis.pairs import Prior, Samples, make_prior, make_samples, moderated, p_values, samples_of
from tests.support.records import fake_record, rows_of

NOTHING = Prior(variance=0.0, degrees=0.0, total=math.inf)


def table(*rows: list[float | None], images: int = 10_000) -> Samples:
    """The samples of rows given as accuracies in percent by seed."""
    return make_samples([{seed: value for seed, value in enumerate(row) if value is not None} for row in rows], [images] * len(rows))


def logits(row: list[float], images: int = 10_000) -> numpy.ndarray:
    """The logits of (correct + 1/2) / (images + 1)."""
    shares = (numpy.array(row) / 100 * images + 0.5) / (images + 1)
    return numpy.log(shares / (1 - shares))


def test_two_rows_alone_have_scipys_paired_t_test_on_logits() -> None:
    a, b = [90.0, 92.0, 93.0, 95.0], [88.0, 91.0, 92.5, 92.0]
    (p,) = p_values(table(a, b), 0, [1])
    assert p == pytest.approx(scipy.stats.ttest_rel(logits(a), logits(b)).pvalue, rel=5e-3)  # p has three digits


def test_two_rows_of_other_seeds_have_scipys_welch_test() -> None:
    a, b = [90.0, 92.0, 93.0], [80.0, 81.0, 79.0, 85.0]
    (p,) = p_values(table([*a, None, None, None, None], [None, None, None, *b]), 0, [1])
    assert p == pytest.approx(scipy.stats.ttest_ind(logits(a), logits(b), equal_var=False).pvalue, rel=5e-3)


def test_a_row_that_is_more_accurate_has_p_1() -> None:
    assert p_values(table([80.0, 81.0, 82.0], [90.0, 91.0, 92.0]), 0, [1]) == [1.0]


def test_fewer_than_three_seeds_have_no_p() -> None:
    samples = table([90.0, 91.0, 92.0], [80.0, 81.0, None], [70.0, None, None])
    assert p_values(samples, 0, [1, 2]) == [None, None] and p_values(samples, 1, [2]) == [None] and p_values(samples, 0, []) == []


def test_equal_differences_of_an_image_are_no_proof_and_large_ones_are() -> None:
    near, far = p_values(table([90.0, 91.0, 92.0], [89.0, 90.0, 91.0], [10.0, 10.0, 10.0], images=100), 0, [1, 2])
    assert near is not None and near > 0.2 and far is not None and far < 0.01


def test_every_image_right_or_wrong_can_be_compared() -> None:
    (p,) = p_values(table([100.0] * 3, [0.0] * 3, images=360), 0, [1])
    assert p is not None and p < 0.01


def test_the_prior_is_that_of_which_variances_were_drawn() -> None:
    """Variances that are scaled inverse chi-square (4 degrees, size 0.25), estimated with 2 degrees each."""
    random = numpy.random.default_rng(0)
    true = 0.25 * 4 / random.chisquare(4, 20_000)
    prior = make_prior(true * random.chisquare(2, 20_000) / 2, numpy.full(20_000, 2))
    assert (prior.degrees, prior.variance, prior.total) == (pytest.approx(4, rel=0.1), pytest.approx(0.25, rel=0.05), 40_000)


def test_the_prior_solves_the_equations_of_its_moments() -> None:
    """Smyth 2004, section 6.2: the variance of log variances is trigamma(d/2) + trigamma(d0/2)."""
    variances, degrees = numpy.array([0.01, 0.2, 1.0, 3.0, 9.0]), numpy.array([2, 2, 3, 4, 2])
    prior = make_prior(variances, degrees)
    logs = numpy.log(variances) - scipy.special.digamma(degrees / 2) + numpy.log(degrees / 2)
    assert polygamma(1, prior.degrees / 2) == pytest.approx(logs.var(ddof=1) - polygamma(1, degrees / 2).mean())
    assert math.log(prior.variance) == pytest.approx(logs.mean() + scipy.special.digamma(prior.degrees / 2) - math.log(prior.degrees / 2))


def test_equal_variances_have_a_prior_of_infinite_weight_and_two_rows_have_none() -> None:
    assert math.isinf(make_prior(numpy.full(5, 0.5), numpy.full(5, 2)).degrees)
    assert make_prior(numpy.array([0.5, 0.5]), numpy.array([2, 2])) == NOTHING


def test_a_variance_is_raised_and_never_lowered() -> None:
    variance, degrees = numpy.array([0.1, 9.0]), numpy.array([2.0, 2.0])
    prior = Prior(variance=0.5, degrees=6.0, total=7.0)
    got, df = moderated(variance, degrees, prior, rows=2)
    assert got.tolist() == pytest.approx([(6 * 2 * 0.5 + 2 * 0.1) / 8, 9.0]) and df.tolist() == [7.0, 7.0]
    got, df = moderated(variance, degrees, Prior(variance=0.5, degrees=math.inf, total=20.0), rows=2)
    assert got.tolist() == [1.0, 9.0] and df.tolist() == [20.0, 20.0]


def test_samples_are_the_rows_accuracies_and_test_images() -> None:
    rows = rows_of(*(fake_record(top1, seed=seed, model=model) for model in "ab" for seed, top1 in enumerate((95.0, 96.0, 97.0))))
    samples = samples_of(rows)
    assert samples.logits.shape == (2, 3) and samples.logits[0].tolist() == pytest.approx(logits([95.0, 96.0, 97.0], 360).tolist())


@pytest.mark.parametrize(("rows", "noisy"), [(10, 1.0), (5, 5.0)])
def test_of_equal_rows_each_stays_among_the_best_in_95_of_100(rows: int, noisy: float) -> None:
    """Three seeds, half of the noise shared by a seed, and one row that is noisier than the others: the hardest truth is that all are as good."""
    random = numpy.random.default_rng(rows)
    deviation = numpy.full(rows, 0.15)
    deviation[0] *= noisy
    lost, draws = numpy.zeros(rows), 200
    for _ in range(draws):
        true = 2.2 + 0.7 * deviation[:, None] * (random.normal(size=3) + random.normal(size=(rows, 3)))
        drawn = 100 * random.binomial(5000, 1 / (1 + numpy.exp(-true))) / 5000
        best = int(drawn.mean(1).argmax())
        others = [row for row in range(rows) if row != best]
        p = p_values(table(*drawn.tolist(), images=5000), best, others)
        lost[others] += [value is not None and value * len(others) < 0.05 for value in p]
    assert lost.mean() / draws < 0.05 and lost.max() / draws < 0.05 + 3 * (0.05 * 0.95 / draws) ** 0.5
