"""The best row within a budget."""

from pathlib import Path

import pytest

from analysis.__main__ import main
from analysis.budget import Answer, answer_lines, decide, excess, nearest, parse_budget, percent
from analysis.merge import AnalysisError
from analysis.rows import Row
from tests.support.records import fake_environment, fake_grid, fake_record, fake_run, rows_of

NOISE = (-0.1, 0.0, 0.1)


def seeds(top1: float, model: str, count: int = 3, **costs: float) -> list:
    """The cells of a row whose seeds lie 0.1 points apart."""
    return [fake_record(top1 + noise, model=model, seed=seed, **costs) for seed, noise in enumerate(NOISE[:count])]


def board() -> tuple[Row, ...]:
    """Two rows alike, one far below that is cheap, and one of a single seed."""
    return rows_of(
        *seeds(97.0, "big", latency_ms=9.0, params=9_000_000, test_samples=10_000),
        *seeds(96.95, "twin", latency_ms=7.0, params=8_000_000, test_samples=10_000),
        *seeds(90.0, "small", latency_ms=2.0, params=1_000_000, test_samples=10_000),
        *seeds(96.0, "single", count=1, latency_ms=3.0, params=2_000_000, test_samples=10_000),
    )


def names(rows: tuple[Row, ...]) -> list[str]:
    return [row.model for row in rows]


def answer(budget: str) -> Answer:
    given = decide(board(), parse_budget(budget))
    assert given is not None
    return given


def test_rows_that_cannot_be_told_from_the_best_are_named() -> None:
    given = answer("latency_ms<=10")
    assert (given.best.model, names(given.tied), names(given.worse), names(given.few)) == ("big", ["twin"], ["small"], ["single"])
    assert given.sentences == [
        "Not settled: 1 row cannot be told from it, of 2 rows compared. The best is one of these 2, sure to 95%.",
        "Too few seeds: 1 row cannot be compared with it. That takes 3 seeds of each.",
    ]


def test_the_best_alone_is_sure_to_a_number() -> None:
    rows = [row for row in board() if row.model in ("big", "small")]
    given = decide(rows, ())
    assert given is not None and names(given.worse) == ["small"] and 0.95 < given.sure < 1
    assert given.sentences[0].startswith(f"Sure to {percent(given.sure)}%: every other row that fits and can be compared (1 row) is less accurate")


def test_a_limit_leaves_rows_out_and_their_comparisons_too() -> None:
    assert answer("latency_ms<=7").best.model == "twin" and names(answer("latency_ms<=7").tied) == []
    assert answer("latency<=2").sentences == ["It is the only row that fits."]


def test_the_best_of_a_single_seed_is_never_sure() -> None:
    given = answer("params<=2e6")
    assert given.best.model == "single" and given.sentences == ["Too few seeds: 1 row cannot be compared with it. That takes 3 seeds of each."]


def test_plain_names_and_columns_and_both_signs_are_limits() -> None:
    rows = rows_of(*seeds(97.0, "a", train_cpu_h=2.0, macs_structural=5_000_000, file_bytes=3_000_000))
    for budget in ("hours<=2", "macs<=5e6", "size<=3", "file_mb<=3.0", "infer_gmacs <= 0.005", "params<=170000, infer_samples_per_sec>=400"):
        assert decide(rows, parse_budget(budget)) is not None, budget
    for budget in ("hours<=1.9", "macs<=4.9e6", "size<=2.9", "infer_samples_per_sec>=401", "train_gpu_h<=100"):
        assert decide(rows, parse_budget(budget)) is None, budget


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        ("latencyms<=5", "unknown column 'latencyms' in --budget; did you mean latency_ms"),
        ("zzz<=5", "unknown column 'zzz' in --budget. Valid are latency, macs, params, size, hours, and the columns of numbers in leaderboard.csv"),
        ("latency=5", "cannot read 'latency=5' in --budget: write a column, <= or >=, and a number, such as latency_ms<=5,params<=10e6"),
        ("", "cannot read ''"),
        ("latency<=5,", "cannot read ''"),
        ("latency<=fast", "'fast' in --budget is not a number"),
        ("latency<=nan", "'nan' in --budget is not a number"),
        ("latency<=5ms", "'5ms' in --budget is not a number"),
    ],
)
def test_a_wrong_budget_is_told_with_what_is_valid(budget: str, words: str) -> None:
    with pytest.raises(AnalysisError) as refused:
        parse_budget(budget)
    assert str(refused.value).startswith(words)


def test_a_limit_on_text_is_refused() -> None:
    with pytest.raises(AnalysisError, match="model is a column of texts"):
        list(answer_lines(board(), parse_budget("model<=5")))


def test_no_row_that_fits_names_the_nearest_and_what_it_needs() -> None:
    lines = list(answer_lines(board(), parse_budget("latency<=1.9,params<=1.2e6")))
    assert lines[1:] == [
        "  no row fits latency<=1.9, params<=1.2e+06",
        "  nearest: small, dense: top-1 90.00% (89.66 to 90.33; 3 seeds). It needs latency 2.",
    ]
    assert list(answer_lines(board(), parse_budget("train_gpu_h<=1")))[2] == "  no row has a value of each of train_gpu_h"


def test_the_nearest_row_oversteps_by_the_smallest_factor() -> None:
    limits = parse_budget("latency<=1,params<=1e6")
    close = nearest(board(), limits)
    assert close is not None and close.model == "small"
    assert [excess(limit, close) for limit in limits] == [1.0, 0.0]
    assert [excess(limit, close) for limit in parse_budget("latency>=4,top1_vs_dense>=0")] == [0.5, 0.0]


@pytest.mark.parametrize(("fraction", "text"), [(1.0, "99.9"), (0.9996, "99.9"), (0.95, "95.0"), (0.9876, "98.7")])
def test_confidence_is_rounded_down_and_never_full(fraction: float, text: str) -> None:
    assert percent(fraction) == text


def test_the_shell_answers_for_each_key_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = fake_run(tmp_path, [*fake_grid(), fake_record(96.0, model="other", environment=fake_environment(gpu="Example GPU"))])
    before = sorted(tmp_path.rglob("*"))
    assert main([str(run), "--budget", "latency_ms<=5,params<=10e6"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line for line in out if line.startswith("leaderboard ")] == [line for line in out if "device" in line] and len(out) > 8
    assert out[1] == "  10 rows of 10 within latency_ms<=5, params<=1e+07"
    assert out[2].startswith("  best: vim_micro+se, dense: top-1 97.") and out[2].endswith("; latency_ms 5, params 170k")
    assert out[-1] == "  It is the only row that fits." and sorted(tmp_path.rglob("*")) == before


def test_the_shell_exits_1_if_no_row_fits_and_2_for_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(fake_run(tmp_path, [fake_record(97.0)]))
    assert main([run, "--budget", "latency<=1"]) == 1
    assert "nearest: vim_micro, dense" in capsys.readouterr().out
    assert main([run, "--budget", "speed<=1"]) == main([run, "--budget", "latency<=9", "--figures"]) == 2
    assert "--budget prints an answer and writes nothing: leave out --figures" in capsys.readouterr().err
    assert main([run, "--budget", "latency<=9", "--live"]) == 2
    assert "leave out --live" in capsys.readouterr().err


def test_the_shell_says_which_records_its_answer_leaves_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = fake_run(tmp_path, [fake_record(97.0), fake_record(101.0, seed=1)])
    assert main([str(run), "--budget", "latency<=9"]) == 0
    assert "skipped " in (said := capsys.readouterr().err) and said.endswith("top1 is 101.0, not a percentage\n")
    fake_run(tmp_path, [fake_record(101.0, seed=2 + i) for i in range(30)])
    assert main([str(run), "--budget", "latency<=9"]) == 0 and capsys.readouterr().err.endswith("\nand 11 more\n"), "no report.html has them"


def test_many_rows_that_cannot_be_told_apart_are_counted() -> None:
    rows = rows_of(*(record for i in range(40) for record in seeds(95.0 - 0.001 * i, f"m{i:02}", test_samples=10_000)))
    lines = list(answer_lines(rows, ()))
    assert sum("top-1" in line for line in lines) == 21 and lines[-1] == "    and 19 more"


def test_a_failed_row_is_never_the_answer() -> None:
    assert decide(rows := rows_of(fake_record(None)), ()) is None
    assert list(answer_lines(rows, ()))[1:] == ["  no row has a result"]
