"""Scores across models and data sets: against a published example, tables made by hand, and SciPy."""

import math
from pathlib import Path

import numpy
import pytest
import scipy.stats
from hypothesis import given
from hypothesis.strategies import integers, lists

from analysis.__main__ import main
from analysis.csv_files import read_csv
from analysis.leaderboard import publish
from analysis.printing import shortened
from analysis.scores import (
    LISTED,
    Group,
    area,
    complete,
    friedman_p,
    groups,
    make_group,
    percent_left,
    profile,
    rank,
    ratios,
    score_lines,
    score_text,
    tabulate,
)
from jobs.experiment.records import Record
from tests.support.records import fake_environment, fake_record, fake_run, fake_spec, rows_of

# Demsar 2006, Journal of Machine Learning Research 7, table 6: AUC of C4.5 with and without m and cf tuned, on 14 data sets. On the last
# but one (voting) he ranks the third before the fourth, whose printed digits are the same.
DEMSAR = (
    (0.763, 0.768, 0.771, 0.798), (0.599, 0.591, 0.590, 0.569), (0.954, 0.971, 0.968, 0.967), (0.628, 0.661, 0.654, 0.657),
    (0.882, 0.888, 0.886, 0.898), (0.936, 0.931, 0.916, 0.931), (0.661, 0.668, 0.609, 0.685), (0.583, 0.583, 0.563, 0.625),
    (0.775, 0.838, 0.866, 0.875), (1.000, 1.000, 1.000, 1.000), (0.940, 0.962, 0.965, 0.962), (0.619, 0.666, 0.614, 0.669),
    (0.972, 0.981, 0.97501, 0.975), (0.957, 0.978, 0.946, 0.970),
)  # fmt: skip


def errors_of(table: tuple[tuple[float, ...], ...]) -> dict[str, dict[str, float]]:
    """Errors in percent of methods a, b, ... on problems 0, 1, ..."""
    return {str(i): {"abcd"[j]: 100 * (1 - value) for j, value in enumerate(values)} for i, values in enumerate(table)}


def test_demsars_example_has_his_mean_ranks_and_critical_difference() -> None:
    ranking = rank(errors_of(DEMSAR))
    assert dict(zip(ranking.names, ranking.mean_ranks, strict=True)) == pytest.approx({"a": 3.143, "b": 2.000, "c": 2.893, "d": 1.964}, abs=6e-4)
    assert ranking.names == ("d", "b", "c", "a") and ranking.critical_difference == pytest.approx(1.25, abs=5e-3)


def test_demsars_example_has_his_statistics() -> None:
    """9.28, and 3.69 after Iman and Davenport; his formula takes no account of ties, SciPy's does."""
    chi2 = 12 * 14 / (4 * 5) * (sum(mean**2 for mean in rank(errors_of(DEMSAR)).mean_ranks) - 4 * 5**2 / 4)
    assert chi2 == pytest.approx(9.28, abs=0.01) and 13 * chi2 / (14 * 3 - chi2) == pytest.approx(3.69, abs=0.01)
    assert rank(errors_of(DEMSAR)).p < scipy.stats.f.sf(3.69, 3, 39)


def test_without_ties_p_is_that_of_the_formulas_of_friedman_and_of_iman_and_davenport() -> None:
    ranks = scipy.stats.rankdata([[-value for value in values] for values in DEMSAR if len(set(values)) == 4], axis=1)
    n, k = ranks.shape
    chi2 = 12 * n / (k * (k + 1)) * ((ranks.mean(0) ** 2).sum() - k * (k + 1) ** 2 / 4)
    assert (n, k) == (10, 4) and friedman_p(ranks) == pytest.approx(scipy.stats.f.sf((n - 1) * chi2 / (n * (k - 1) - chi2), k - 1, (k - 1) * (n - 1)))


def test_full_agreement_and_none_at_all_have_a_p() -> None:
    assert friedman_p(numpy.array([[1, 2, 3], [1, 2, 3]])) == 0.0 and friedman_p(numpy.full((3, 3), 2.0)) == 1.0


def test_equal_methods_are_rarely_told_apart() -> None:
    random = numpy.random.default_rng(0)
    apart = 0
    for _ in range(150):
        ranking = rank({str(i): dict(zip("abcd", random.normal(10, 1, 4).tolist(), strict=True)) for i in range(8)})
        apart += ranking.mean_ranks[-1] - ranking.mean_ranks[0] > ranking.critical_difference
    assert apart / 150 < 0.05 + 3 * (0.05 * 0.95 / 150) ** 0.5


def test_an_entrant_and_a_problem_with_holes_are_left_out_and_named() -> None:
    table = {"x": {"a": 1.0, "b": 2.0, "c": 3.0, "d": 1.0}, "y": {"a": 1.0, "b": 2.0, "c": 3.0}, "z": {"a": 1.0, "b": 2.0, "c": 3.0}, "w": {"a": 1.0}}
    kept, left_out = complete(table)
    assert kept == {line: {"a": 1.0, "b": 2.0, "c": 3.0} for line in "xyz"}
    assert left_out == ["d: did not run on 3 of 4 problems", "w: 2 of 3 methods did not run"]


def test_a_problem_on_which_all_failed_is_left_out_and_a_single_failure_is_the_last() -> None:
    kept, left_out = complete({"x": {"a": math.inf, "b": math.inf, "c": 1.0}, "y": {"a": 1.0, "b": math.inf}, "z": {"a": 1.0, "b": 2.0}})
    assert kept == {"y": {"a": 1.0, "b": math.inf}, "z": {"a": 1.0, "b": 2.0}}
    assert left_out == ["c: did not run on 2 of 3 problems", "x: every method failed"]


def test_thousands_of_settings_that_ran_once_are_left_out_in_no_time_and_counted() -> None:
    table = {str(line): {f"{line}-{i}": 1.0 for i in range(600)} for line in range(5)}
    kept, left_out = complete(table)
    assert len(kept) == 1 and len(left_out) >= 2400 and shortened(left_out, LISTED)[-1] == f"and {len(left_out) - 10} more"


@given(holes=lists(lists(integers(0, 1), min_size=4, max_size=4), min_size=1, max_size=5))
def test_what_is_kept_is_complete(holes: list[list[int]]) -> None:
    kept, _ = complete({str(i): {"abcd"[j]: 1.0 for j in range(4) if line[j]} for i, line in enumerate(holes) if any(line)})
    assert len({tuple(values) for values in kept.values()}) <= 1


def group(errors: dict[str, dict[str, float]], image: float = 0.01) -> Group:
    """A group with these errors, in which one test image is `image` percent."""
    return Group(
        level=0.5,
        macs_left=dict.fromkeys("abcd", 0.5),
        errors=errors,
        least=dict.fromkeys(errors, image),
        ranking=rank(errors),
        left_out=(),
        why_not="",
    )


def test_profiles_are_those_of_a_table_made_by_hand() -> None:
    multiples = ratios(group({"x": {"a": 2.0, "b": 4.0, "c": 3.0}, "y": {"a": 9.0, "b": 3.0, "c": 3.3}}))
    assert {
        name: values == pytest.approx(by_hand) for (name, values), by_hand in zip(multiples.items(), ([1, 3], [2, 1], [1.5, 1.1]), strict=True)
    } == {
        "a": True,
        "b": True,
        "c": True,
    }
    assert [profile(multiples["a"], tau) for tau in (1, 2.9, 3)] == [0.5, 0.5, 1.0] and [profile(multiples["c"], tau) for tau in (1, 1.1, 1.5)] == [
        0,
        0.5,
        1,
    ]


def test_the_area_is_that_under_the_steps() -> None:
    multiples = [1.0, 2.5, 3.0, 7.0, math.inf]
    steps = [profile(multiples, tau) for tau in numpy.linspace(1, 4, 3001)]
    assert area(multiples) == pytest.approx(numpy.mean(steps), abs=1e-3) and area([1.0, 1.0]) == 1.0


def test_an_error_below_one_image_counts_as_one_and_a_failure_is_never_near() -> None:
    multiples = ratios(group({"x": {"a": 0.0, "b": 0.1, "c": 0.5}, "y": {"a": 1.0, "b": math.inf, "c": 1.0}}, image=0.25))
    assert multiples == {"a": [1.0, 1.0], "b": [1.0, math.inf], "c": [2.0, 1.0]} and profile(multiples["b"], 1e9) == 0.5


def entrant(method: str, knob: float, model: str, top1: float | None, left: float, **changes: object) -> list[Record]:
    """Two seeds of a method with a knob on a model, with a fraction of the multiply-adds left."""
    knobs = {"method": method, "label": f"{method}({knob})", "knobs": {"ratio": knob}}
    records = []
    for seed in range(2):
        spec = fake_spec("dense", seed) | {"pruning": knobs}
        more = {} if top1 is None else {"macs_nonzero": round(12e6 * left), "sparsity": knob}
        records.append(
            fake_record(None if top1 is None else top1 + seed, model=model, pruning=knobs["label"], seed=seed, spec=spec, **more, **changes)
        )
    return records


def field() -> list[Record]:
    """Three methods on three models at half of the multiply-adds, two at a quarter, and one model without the third method."""
    quality = {"m1": (95.0, 90.0, 80.0), "m2": (90.0, 91.0, 70.0), "m3": (88.0, 80.0, 60.0)}
    records = [fake_record(97.0, model=model) for model in quality]
    for model, (a, b, c) in quality.items():
        records += entrant("a", 0.5, model, a, 0.55) + entrant("b", 0.4, model, b, 0.45) + entrant("c", 0.5, model, c, 0.5)
        records += entrant("a", 0.8, model, a - 5, 0.2) + entrant("b", 0.8, model, b - 5, 0.3)
    return records


def test_entrants_are_compared_at_like_strength() -> None:
    half, quarter = groups(rows_of(*field()))
    assert (percent_left(half), list(half.macs_left), half.why_not) == ("50%", ["a(0.5)", "b(0.4)", "c(0.5)"], "")
    assert half.ranking is not None and half.ranking.names == ("a(0.5)", "b(0.4)", "c(0.5)")
    assert half.ranking.mean_ranks == pytest.approx((4 / 3, 5 / 3, 3)) and len(half.ranking.problems) == 3
    assert percent_left(quarter) == "25%" and quarter.ranking is None
    assert quarter.why_not == "2 methods on 3 problems: ranks need 3 methods on 2 problems"


def test_two_clusters_and_two_protocols_do_not_count_a_problem_twice() -> None:
    again = [record for model in ("m1", "m2", "m3") for record in entrant("a", 0.5, model, 10.0, 0.5, environment=fake_environment(gpu="Example"))]
    half, _ = groups(rows_of(*field(), *again))
    assert half.ranking is not None and len(half.ranking.problems) == 3 and half.ranking.names[0] == "a(0.5)"


def test_labels_that_several_methods_share_are_told_apart() -> None:
    records = [record.model_copy(update={"pruning": "same"}) for record in field()]
    (titles,) = {tuple(sorted(line)) for line in tabulate([row for row in rows_of(*records) if not row.is_dense]).values()}
    assert len(set(titles)) == 5 and all(title.startswith("same #") for title in titles)


def test_a_method_that_failed_on_a_problem_comes_last_there() -> None:
    records = [record for record in field() if (record.model, record.pruning) != ("m1", "a(0.5)")]
    half, _ = groups(rows_of(*records, *entrant("a", 0.5, "m1", None, 0.5)))
    assert half.ranking is not None and dict(zip(half.ranking.names, half.ranking.mean_ranks, strict=True))["a(0.5)"] == pytest.approx(
        (3 + 2 + 1) / 3
    )
    assert {line["method"]: line["mean_error"] for line in score_lines([half])}["a(0.5)"] is None


def test_scores_csv_has_a_line_for_each_ranked_method(tmp_path: Path) -> None:
    run = fake_run(tmp_path, field())
    publish([run], run)
    lines = read_csv(run / "scores.csv")
    assert [(line["method"], line["mean_rank"], line["told_from_best"], line["within_1"]) for line in lines] == [
        ("a(0.5)", "1.3333333", "false", "0.66666667"),
        ("b(0.4)", "1.6666667", "false", "0.33333333"),
        ("c(0.5)", "3", "false", "0"),
    ]


def test_the_shell_prints_scores_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = fake_run(tmp_path, field())
    before = sorted(tmp_path.rglob("*"))
    assert main([str(run), "--scores"]) == 0 and sorted(tmp_path.rglob("*")) == before
    assert capsys.readouterr().out.splitlines() == [
        "about 50% of the dense multiply-adds left",
        "  mean rank over 3 problems; critical difference 1.91; Friedman p 0.049",
        "   1.33  a(0.5): profile area 0.99",
        "   1.67  b(0.4): profile area 0.80",
        "   3.00  c(0.5): profile area 0.12",
        "about 25% of the dense multiply-adds left",
        "  not shown: 2 methods on 3 problems: ranks need 3 methods on 2 problems",
    ]


def test_a_run_without_pruning_says_so() -> None:
    assert list(score_text(groups(rows_of(fake_record(97.0))))) == ["no pruned row has a result: there are no methods to compare"]


def test_a_group_without_a_complete_problem_says_why() -> None:
    assert make_group(0.5, {"a": 0.5}, {}).why_not == "0 methods on 0 problems: ranks need 3 methods on 2 problems"
