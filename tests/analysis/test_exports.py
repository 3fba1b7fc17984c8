import math
import unicodedata
from dataclasses import replace

import pytest
import scipy.stats

import analysis.exports
from analysis.exports import comparison_lines, coverage_lines, latex, markdown, pareto_lines, tex
from analysis.merge import Merged
from analysis.rows import make_rows
from jobs.experiment.records import Record
from tests.support.records import fake_environment, fake_grid, fake_record, rows_of


def merged(*records: Record) -> Merged:
    return Merged(records=records, planned={}, conflicts=(), skipped=())


def test_the_front_holds_what_nothing_beats_in_both() -> None:
    points = {"cheap": (80.0, 1.0), "good": (90.0, 2.0), "beaten": (85.0, 3.0), "best": (95.0, 4.0), "equal": (95.0, 5.0), "dearer": (80.0, 1.5)}
    rows = rows_of(*(fake_record(top1, model=model, latency_ms=cost) for model, (top1, cost) in points.items()))
    points = [(line["model"], line["value"], line["unit"]) for line in pareto_lines(rows) if line["cost"] == "latency_ms"]
    assert points == [("cheap", 1.0, "ms"), ("good", 2.0, "ms"), ("best", 4.0, "ms")]


def test_each_key_has_fronts_of_its_own() -> None:
    rows = rows_of(fake_record(95.0, model="a"), fake_record(90.0, model="b", environment=fake_environment(gpu="Example GPU")))
    assert {line["model"] for line in pareto_lines(rows)} == {"a", "b"}


def test_failed_rows_stand_on_no_front() -> None:
    lines = list(pareto_lines(rows_of(fake_record(95.0), fake_record(None, pruning="magnitude-0.9"))))
    assert lines and {line["pruning"] for line in lines} == {"dense"}


def test_coverage_lists_the_holes_by_seed() -> None:
    records = (fake_record(97.0, seed=0), fake_record(None, seed=2))
    planned = {record.id: record.spec for record in [*records, fake_record(97.0, seed=1), fake_record(90.0, pruning="magnitude-0.9", seed=4)]}
    content = replace(merged(*records), planned=planned)
    dense, absent = coverage_lines(make_rows(content), content)
    seeds = ("seeds_done", "seeds_failed", "seeds_missing")
    assert [dense[name] for name in ("n_expected", "done", "failed", "missing", *seeds)] == [3, 1, 1, 1, "0", "2", "1"]
    assert [absent[name] for name in ("pruning", "n_expected", "done", "missing", *seeds)] == ["magnitude-0.9", 1, 0, 1, "", "", "4"]


def test_an_absent_row_is_called_by_what_the_grid_varies() -> None:
    def planned(sparsity: float) -> dict[str, object]:
        spec = fake_record(90.0, pruning=f"magnitude-{sparsity}").spec
        return spec | {"pruning": {"method": "magnitude", "label": None, "knobs": {"scope": "global", "sparsity": sparsity}}}

    content = replace(merged(fake_record(97.0)), planned={"a": planned(0.5), "b": planned(0.9)})
    _, *absent = coverage_lines(make_rows(content), content)
    assert [line["pruning"] for line in absent] == ["magnitude sparsity=0.5", "magnitude sparsity=0.9"]


def test_comparisons_pair_seeds_and_correct_for_their_number() -> None:
    accuracies = {"dense": (97.0, 96.0, 95.5), "random-0.5": (90.0, 91.0, 89.0), "magnitude-0.5": (96.0, 95.5, 95.0)}
    records = [fake_record(top1, pruning=pruning, seed=seed) for pruning, runs in accuracies.items() for seed, top1 in enumerate(runs)]
    lines = {(line["a"], line["b"]): line for line in comparison_lines(rows_of(*records))}
    assert set(lines) == {("dense", "magnitude-0.5"), ("dense", "random-0.5"), ("magnitude-0.5", "random-0.5")}
    plain = {pair: scipy.stats.ttest_rel(*(accuracies[name] for name in pair)).pvalue for pair in lines}
    assert {pair: line["p_t"] for pair, line in lines.items()} == pytest.approx(plain)
    smallest = min(plain, key=lambda pair: plain[pair])
    assert lines[smallest]["p_t_holm"] == pytest.approx(3 * plain[smallest])
    assert lines["dense", "random-0.5"]["difference"] == pytest.approx((7 + 5 + 6.5) / 3)


def test_of_a_large_family_each_row_is_compared_with_the_best_and_with_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    accuracies = {"magnitude-0.5": 97.0, "magnitude-0.6": 96.0, "dense": 95.0, "magnitude-0.7": 94.0}
    rows = rows_of(*(fake_record(top1 + seed, pruning=pruning, seed=seed) for pruning, top1 in accuracies.items() for seed in range(2)))
    monkeypatch.setattr(analysis.exports, "FAMILY", 3)
    best, second, dense, last = accuracies
    pairs = [(line["a"], line["b"]) for line in comparison_lines(rows)]
    assert pairs == [(best, second), (best, dense), (best, last), (second, dense), (dense, last)]


def test_models_are_not_compared_with_each_other_but_methods_are() -> None:
    lines = list(comparison_lines(rows_of(*fake_grid())))
    assert len(lines) == 2 * math.comb(5, 2)


def test_markdown_keeps_the_three_speed_ups_apart() -> None:
    text = markdown(rows_of(fake_record(97.0, pruning="magnitude-0.5", macs_structural=6_000_000, speedup_measured=1.7)))
    assert text.splitlines()[2].endswith("| theory × | structural × | measured × |") and text.splitlines()[4].endswith("| 1.67 | 2.00 | 1.70 |")


def test_markdown_has_a_line_a_row_and_no_stray_signs() -> None:
    text = markdown(rows_of(fake_record(97.0, model="a|b<script>_x_")))
    assert r"a\|b&lt;script>\_x\_" in text and len(text.strip().splitlines()) == 5


@pytest.mark.parametrize("label", ["a\nb", "a\r\n| x |", "\x1b[31mred", "a\u2028b", "\udcff"])
def test_no_label_breaks_a_line_of_a_table(label: str) -> None:
    record = fake_record(97.0, model=label, pruning=label, environment=fake_environment(cpu=label, loader=label))
    plain = fake_record(97.0)
    for export in (markdown, latex):
        text = export(rows_of(record))
        assert len(text.splitlines()) == len(export(rows_of(plain)).splitlines())
        assert not {sign for sign in text if sign != "\n" and unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp")}


def test_latex_has_commands_for_signs_that_its_fonts_set_as_others() -> None:
    assert [tex(sign) for sign in "<>|"] == [r"\textless{}", r"\textgreater{}", r"\textbar{}"]


def test_latex_escapes_what_it_would_act_on() -> None:
    text = latex(rows_of(fake_record(97.0, model=r"a_b&c%$#{}\end")))
    assert r"a\_b\&c\%\$\#\{\}\textbackslash{}end" in text
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1


def test_latex_sets_the_leading_tie_group_in_bold() -> None:
    text = latex(rows_of(*fake_grid()))
    bold = [line for line in text.splitlines() if "textbf" in line]
    assert bold and all("dense" in line or "0.5" in line for line in bold)
