"""Verdicts on records and runs that are made up; real runs are in tests/harness/test_verify.py."""

from typing import Any

import pytest

from harness.review.verdict import Rerun, expectation, judged
from jobs.experiment.records import Record
from jobs.experiment.verification import Verification
from tests.support.records import fake_environment, fake_record

HERE, ELSEWHERE = fake_environment(code="c" * 16), fake_environment(code="c" * 16, cpu="Other CPU (avx512f)")
SEEDS = [97.1, 96.8, 97.3, 97.0]


def recorded(*top1: float) -> dict[int, Record]:
    """The records of a row by seed, each with weights of its own."""
    return {seed: weights(fake_record(value, seed=seed, environment=HERE), f"recorded {seed}") for seed, value in enumerate(top1)}


def weights(record: Record, digest: str) -> Record:
    """A record with a digest of weights."""
    return record.model_copy(update={"weights_sha256": digest})


def verdict(row: dict[int, Record], *runs: Record, margin: float = 1.0) -> Verification:
    """The verdict on the row's first cell."""
    return judged(Rerun(record=row[0], row=row, runs=runs, margin=margin), code_of_record=True, by=None)


def runs_of(*top1: float, first: int = 0, environment: Any = ELSEWHERE) -> list[Record]:
    """Runs with other weights than those recorded, with seeds from `first` on."""
    return [weights(fake_record(value, seed=seed, environment=environment), f"run {seed}") for seed, value in enumerate(top1, first)]


def test_equal_weights_with_equal_numbers_pass_and_need_no_test() -> None:
    row = recorded(97.0)
    result = verdict(row, row[0])
    assert result.verdict == "pass" and result.comparison is None and "bit for bit" in result.reasons[0] and result.fits(row[0])


@pytest.mark.parametrize("change", [{"top1": 100.0}, {"test_loss": 0.1}, {"params_nonzero": 7}])
def test_a_record_with_other_numbers_than_its_weights_give_fails(change: dict[str, float]) -> None:
    row = recorded(97.0, 96.0, 98.0)
    assert row[0].metrics is not None
    forged = row[0].model_copy(update={"metrics": row[0].metrics.model_copy(update=change)})
    result = verdict({**row, 0: forged}, row[0])
    assert result.verdict == "fail" and next(iter(change)) in result.runs[0].differing
    assert "top1" not in change or "top-1 100.00 recorded, 97.00 here" in result.reasons[0]


def test_elsewhere_equal_weights_may_be_rounded_to_another_image_but_not_to_three_points() -> None:
    """360 test images: one of them is 0.28 points."""
    row = recorded(97.0)
    for top1, test_loss, expected in [(97.0, 0.5001, "pass"), (97.2777, 0.5, "pass"), (94.0, 0.5, "fail")]:
        run = weights(fake_record(top1, environment=ELSEWHERE, test_loss=test_loss), "recorded 0")
        assert verdict(row, run).verdict == expected


@pytest.mark.parametrize(
    ("runs", "expected", "words"),
    [
        ((96.9, 97.2, 97.0), "pass", "equivalent within the margin of 1 point"),
        ((96.6, 96.5, 96.7), "pass", "lower all the same (p "),
        ((94.1, 93.8, 94.3), "fail", "worse by more than the margin of 1 point"),
        ((95.9, 97.0, 96.2), "drift", "neither equivalent within the margin of 1 point nor worse by more is shown"),
        ((99.1, 99.0, 99.2), "drift", "better than recorded by more than the margin of 1 point"),
        ((97.0,), "pass", "by the spread of the recorded seeds"),
        ((94.0,), "fail", "1 run minus that of 4 recorded seeds is -3.05 points"),
    ],
)
def test_other_weights_are_judged_by_the_tests(runs: tuple[float, ...], expected: str, words: str) -> None:
    result = verdict(recorded(*SEEDS), *runs_of(*runs))
    assert result.verdict == expected and words in " ".join(result.reasons)


def test_accuracies_that_were_raised_by_three_points_in_the_whole_row_fail_elsewhere() -> None:
    forged = recorded(*(value + 3 for value in (94.0, 94.2, 93.9)))
    assert verdict(forged, *runs_of(94.1, 94.0, 93.9)).verdict == "fail"


def test_drift_says_how_many_seeds_would_do_or_that_none_would() -> None:
    result = verdict(recorded(95.5, 97.0, 96.4, 96.9, 96.1), *runs_of(96.2))
    assert result.verdict == "drift" and "--seeds 3 would show equivalence" in result.reasons[-1]
    result = verdict(recorded(90.0, 98.0), *runs_of(92.0))
    assert result.verdict == "drift" and "50 runs would not show equivalence either" in result.reasons[-1]


def test_one_recorded_seed_spans_no_band() -> None:
    close, off = verdict(recorded(97.0), *runs_of(96.5)), verdict(recorded(97.0), *runs_of(93.0))
    assert (close.verdict, off.verdict) == ("pass", "drift") and close.comparison is None
    assert all("spans no band" in " ".join(result.reasons) or "span no band" in " ".join(result.reasons) for result in (close, off))
    several = verdict(recorded(97.0), *runs_of(93.0, 93.1, 92.9))
    assert several.verdict == "fail" and several.comparison is not None and several.comparison.spread_of == "runs"


def test_the_margin_itself_is_within_it_whatever_rounding_makes_of_it() -> None:
    """Of 359 test images, every count beside every fourth one below, held against a margin of exactly four images."""
    margin, share = 400 / 359, 100 / 359
    verdicts = {verdict(recorded(share * (count + 4)), *runs_of(share * count), margin=margin).verdict for count in range(0, 355, 7)}
    assert verdicts == {"pass"}
    assert verdict(recorded(share * 300), *runs_of(share * 295), margin=margin).verdict == "drift"


def test_weights_that_had_to_be_equal_and_are_not_are_no_pass() -> None:
    result = verdict(recorded(*SEEDS), *runs_of(97.0, 97.0, 97.1, environment=HERE))
    assert result.verdict == "drift" and "had to give the same weights, bit for bit, and did not (seed 0, 1, 2)" in result.reasons[0]


def test_a_seed_that_came_out_other_than_it_had_to_is_told_beside_equal_ones_and_where_the_tests_leave_it_open() -> None:
    row = recorded(*SEEDS)
    for runs in ([row[0], *runs_of(94.0, 99.0, first=1, environment=HERE)], runs_of(94.0, 99.0, environment=HERE)):
        result = verdict(row, *runs)
        assert result.verdict == "drift" and "had to give the same weights" in result.reasons[0]


def test_equal_weights_of_chosen_seeds_fail_by_new_seeds_and_stand_where_those_leave_it_open() -> None:
    row = recorded(*SEEDS)
    chosen = verdict(row, row[0], *runs_of(93.0, 93.2, 92.9, first=4))
    assert chosen.verdict == "fail" and "seeds may have been chosen" in " ".join(chosen.reasons)
    assert chosen.comparison is not None and chosen.comparison.runs == 3, "the run with the recorded weights is no second draw"
    open_still = verdict(row, row[0], *runs_of(94.0, 98.0, first=4))
    assert open_still.verdict == "pass" and open_still.reasons[1].startswith("further seeds: neither equivalent")


def test_without_a_recorded_digest_runs_are_judged_by_their_numbers() -> None:
    row = {0: recorded(97.0)[0].model_copy(update={"weights_sha256": None})}
    result = verdict(row, *runs_of(97.0))
    assert result.runs[0].same_weights is None and result.verdict == "pass"


def test_the_band_is_told_before_the_verdict() -> None:
    assert expectation({0: 96.0, 1: 97.0, 2: 98.0}, 1).endswith("another run falls below 93.63 with probability 5%")
    assert expectation({0: 96.0, 1: 97.0, 2: 98.0}, 3).endswith("the mean of 3 others falls below 94.62 with probability 5%")
    assert "spans no band" in expectation({0: 96.0}, 1) and "too few" in expectation({0: 1.0, 1: 90.0}, 1)
