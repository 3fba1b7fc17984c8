import numpy
import pytest
import scipy.stats
from hypothesis import assume, given
from hypothesis.strategies import floats, lists

import analysis.statistics
from analysis.statistics import (
    Standing,
    differences,
    holm,
    paired_p_values,
    signed_rank_p_values,
    standings,
    summarize,
    summarize_accuracies,
    wilson_interval,
)


@pytest.mark.parametrize("n", [3, 5, 30])
def test_the_interval_of_differences_is_scipys_t_interval(n: int) -> None:
    values = numpy.random.default_rng(n).normal(9, 2, n)
    got = summarize(list(values))
    low, high = scipy.stats.t.interval(0.95, n - 1, loc=values.mean(), scale=scipy.stats.sem(values))
    assert got is not None
    assert (got.mean, got.std, got.low, got.high) == pytest.approx((values.mean(), values.std(ddof=1), low, high), rel=1e-12)


def test_one_value_has_neither_spread_nor_interval() -> None:
    for got in (summarize([90.0]), summarize_accuracies([90.0], 100)):
        assert got is not None and (got.mean, got.n) == (90.0, 1)
        assert got.std is got.low is got.high is None


def test_two_values_have_a_spread_but_no_interval() -> None:
    for got in (summarize([89.0, 91.0]), summarize_accuracies([89.0, 91.0], 100)):
        assert got is not None and got.std == pytest.approx(2**0.5) and got.low is got.high is None


def test_no_values_have_no_summary() -> None:
    assert summarize([]) is summarize_accuracies([], 100) is None


def test_the_interval_of_differences_covers_the_true_mean_95_times_in_100() -> None:
    draws = numpy.random.default_rng(0).normal(9, 2, (4000, 3))
    covered = sum(got.low <= 9 <= got.high for row in draws if (got := summarize(list(row))) and got.low is not None and got.high is not None)
    assert covered / 4000 == pytest.approx(0.95, abs=4 * (0.95 * 0.05 / 4000) ** 0.5)


def test_the_interval_of_differences_ends_where_differences_do() -> None:
    got = summarize([-90.0, -10.0, 80.0])
    assert got is not None and (got.low, got.high) == (-100.0, 100.0)


@pytest.mark.parametrize(("correct", "images"), [(360, 400), (0, 400), (400, 400), (1, 7)])
def test_without_more_spread_than_the_images_give_the_interval_is_scipys_wilson(correct: int, images: int) -> None:
    share = correct / images
    pooled = scipy.stats.binomtest(3 * correct, 3 * images).proportion_ci(0.95, method="wilson")
    assert wilson_interval(share, 0.0, 3, images) == pytest.approx((pooled.low, pooled.high), abs=1e-12)


def test_far_from_0_and_100_with_many_images_it_is_the_t_interval() -> None:
    values = [49.9, 50.0, 50.1]
    shares, differences_of_them = summarize_accuracies(values, 10**9), summarize(values)
    assert shares is not None and differences_of_them is not None
    assert (shares.low, shares.high) == pytest.approx((differences_of_them.low, differences_of_them.high), abs=1e-4)


def test_it_is_worked_out_by_hand_where_seeds_differ_more_than_images_explain() -> None:
    # n* = .97 * .03 * 3 / .01^2 * (1.95996 / 4.30265)^2 = 181.15; centre (.97 + .010603) / 1.021206, half .026449
    got = summarize_accuracies([96.0, 97.0, 98.0], 10_000)
    assert got is not None and (got.low, got.high) == pytest.approx((93.379, 98.669), abs=1e-3)


@given(values=lists(floats(0, 100), min_size=3, max_size=6))
def test_the_interval_of_accuracies_stays_within_0_and_100_and_holds_the_mean(values: list[float]) -> None:
    got = summarize_accuracies(values, 360)
    assert got is not None and got.low is not None and got.high is not None
    assert 0 <= got.low <= got.mean + 1e-9 and got.mean - 1e-9 <= got.high <= 100


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize(("mean", "spread"), [(0.5, 0.05), (0.9, 0.03), (0.97, 0.01), (0.995, 0.0016), (0.995, 0.0)])
def test_the_interval_of_accuracies_covers_the_true_mean_95_times_in_100(mean: float, spread: float, seeds: int) -> None:
    """Accuracies of seeds are beta about the mean, and of 2,000 images each: a beta-binomial."""
    random = numpy.random.default_rng(seeds)
    total = mean * (1 - mean) / spread**2 - 1 if spread else 1e12
    drawn = random.binomial(2000, random.beta(mean * total, (1 - mean) * total, (1500, seeds))) / 2000
    ends = [wilson_interval(float(row.mean()), float(row.std(ddof=1)), seeds, 2000) for row in drawn]
    covered = numpy.mean([low <= mean <= high for low, high in ends])
    assert covered > 0.95 - 4 * (0.95 * 0.05 / 1500) ** 0.5


def test_differences_pair_by_seed_and_drop_what_has_no_partner() -> None:
    assert differences({2: 5.0, 0: 1.0, 7: 9.0}, {0: 0.5, 2: 4.0, 3: 8.0}) == [0.5, 1.0]


def test_paired_p_values_are_scipys_paired_t_test() -> None:
    random = numpy.random.default_rng(1)
    pairs = [(random.normal(90, 1, n), random.normal(89, 1, n)) for n in (2, 5, 3, 5)]
    got = paired_p_values([list(a - b) for a, b in pairs])
    assert got == pytest.approx([scipy.stats.ttest_rel(a, b).pvalue for a, b in pairs], rel=1e-9)


def test_signed_rank_p_values_are_scipys_wilcoxon() -> None:
    samples = [list(numpy.random.default_rng(seed).normal(1, 1, n)) for seed, n in enumerate((6, 8, 6))]
    assert signed_rank_p_values(samples) == pytest.approx([scipy.stats.wilcoxon(sample).pvalue for sample in samples])


def test_no_p_value_comes_from_too_few_pairs_or_from_no_spread() -> None:
    assert paired_p_values([[1.0], [], [0.5, 0.5, 0.5 + 1e-14]]) == [None, None, None]
    assert signed_rank_p_values([[1.0, 2.0, 3.0, 4.0, 5.0]]) == [None]


def test_holm_matches_a_table_made_by_hand() -> None:
    # p = .01 .04 .03 .005, m = 4: sorted .005*4=.02, .01*3=.03, .03*2=.06, .04*1=.04 -> raised to .06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_leaves_out_what_has_no_p_value_and_never_exceeds_1() -> None:
    assert holm([None, 0.9, 0.8]) == [None, 1.0, 1.0]
    assert holm([]) == []


def rejected(p_values: list[float], level: float) -> set[int]:
    """Holm's procedure as he wrote it: from the smallest p on, reject while p <= level / hypotheses left."""
    hypotheses: set[int] = set()
    for k, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[i] > level / (len(p_values) - k):
            break
        hypotheses.add(i)
    return hypotheses


@given(p_values=lists(floats(0.0001, 1.0), min_size=1, max_size=8), level=floats(0.001, 0.999))
def test_a_corrected_p_is_the_level_at_which_holms_procedure_rejects(p_values: list[float], level: float) -> None:
    corrected = holm(p_values)
    assume(all(abs(p - level) > 1e-9 for p in corrected if p is not None))
    assert {i for i, p in enumerate(corrected) if p is not None and p <= level} == rejected(p_values, level)


def board(true_means: numpy.ndarray, seeds: int, random: numpy.random.Generator) -> tuple[numpy.ndarray, list[dict[int, float]]]:
    """The true places of simulated rows, and the rows, both in the order of the observed means. Half of the noise is shared by a seed's runs."""
    runs = true_means[:, None] + random.normal(0, 0.7, seeds) + random.normal(0, 0.7, (len(true_means), seeds))
    sequence = numpy.argsort(-runs.mean(1))
    return sequence, [dict(enumerate(runs[i])) for i in sequence]


@pytest.mark.parametrize("seeds", [3, 5])
def test_rank_intervals_cover_the_true_rank(seeds: int) -> None:
    random = numpy.random.default_rng(seeds)
    inside = []
    for _ in range(60):
        sequence, rows = board(90 - 0.5 * numpy.arange(8), seeds, random)
        inside += [
            standing.low <= true_rank + 1 <= standing.high
            for true_rank, standing in zip(sequence, standings(rows, draws=500), strict=True)
            if standing
        ]
    assert len(inside) == 480 and numpy.mean(inside) > 0.95


def test_equal_rows_are_rarely_told_apart() -> None:
    random = numpy.random.default_rng(0)
    apart = [standings(board(numpy.full(2, 90.0), 3, random)[1], draws=300)[1] for _ in range(400)]
    assert numpy.mean([standing.tie == 2 for standing in apart if standing]) < 0.05 + 4 * (0.05 * 0.95 / 400) ** 0.5


def test_rows_far_apart_have_groups_and_ranks_of_their_own() -> None:
    rows = [{seed: mean + 0.1 * seed for seed in range(3)} for mean in (95.0, 90.0, 80.0)]
    assert standings(rows) == [Standing(low=i, high=i, tie=i) for i in (1, 2, 3)]


def test_a_row_of_fewer_than_3_seeds_has_no_interval_and_joins_no_group() -> None:
    rows = [{0: 95.0, 1: 96.0, 2: 97.0}, {0: 94.0}, {0: 10.0, 1: 11.0, 2: 12.0}]
    assert [standing and standing.tie for standing in standings(rows)] == [1, None, 2]
    assert standings([{0: 1.0}, {}]) == [None, None]


def test_the_first_row_that_is_settled_opens_the_first_group() -> None:
    rows = [{0: 99.0}, {0: 95.0, 1: 96.0, 2: 97.0}, {0: 10.0, 1: 11.0, 2: 12.0}]
    assert [standing and standing.tie for standing in standings(rows)] == [None, 1, 2]


def test_groups_of_many_rows_are_those_of_one_row_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = board(90 - 0.05 * numpy.arange(200), 3, numpy.random.default_rng(4))[1]
    together = [standing.tie for standing in standings(rows) if standing]
    monkeypatch.setattr(analysis.statistics, "TOGETHER", 1)
    assert together == [standing.tie for standing in standings(rows) if standing] and len(set(together)) > 3


def test_standings_are_the_same_every_time() -> None:
    rows = board(90 - 0.5 * numpy.arange(6), 5, numpy.random.default_rng(3))[1]
    assert standings(rows) == standings(rows)
