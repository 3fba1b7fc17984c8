"""The data of figures, and the figures for papers."""

from pathlib import Path

import pytest

from analysis.exports import COSTS
from analysis.figures import LEGEND, accuracy_figure, draw, fitting, hover, lines, pareto_figure, write_figures
from jobs.experiment.records import Record
from tests.support.records import fake_grid, fake_record, fake_spec, rows_of


def test_a_line_is_a_method_on_a_model_at_growing_sparsity() -> None:
    drawn = lines(rows_of(*fake_grid()))
    assert [(line.name, [row.pruning for row in line.rows]) for line in drawn][:3] == [
        ("vim_micro dense", ["dense"]),
        ("vim_micro magnitude", ["magnitude-0.5", "magnitude-0.9"]),
        ("vim_micro random", ["random-0.5", "random-0.9"]),
    ]
    assert len({(line.color, line.symbol) for line in drawn}) == len(drawn) == 6


def test_knobs_other_than_the_sparsity_make_lines_of_their_own() -> None:
    def record(scope: str, sparsity: float) -> Record:
        spec = fake_spec("dense", 0)
        spec["pruning"] = {"method": "magnitude", "label": f"{scope}{sparsity}", "knobs": {"scope": scope, "sparsity": sparsity, "begin": 1}}
        return fake_record(90.0, pruning=f"{scope}{sparsity}", spec=spec)

    drawn = lines(rows_of(*(record(scope, sparsity) for scope in ("layer", "global") for sparsity in (0.5, 0.9))))
    assert sorted(line.name for line in drawn) == ["vim_micro magnitude scope=global", "vim_micro magnitude scope=layer"]


def test_chains_of_the_same_methods_are_a_line_at_growing_sparsity_of_any_link() -> None:
    def record(ratio: float, sparsity: float) -> Record:
        links = [{"method": "structured", "knobs": {"ratio": ratio}}, {"method": "wanda", "knobs": {"sparsity": sparsity}}]
        spec = fake_spec("dense", 0) | {"pruning": {"method": "chain", "label": f"{ratio}{sparsity}", "knobs": {"methods": links, "split": []}}}
        return fake_record(90.0, pruning=f"{ratio}{sparsity}", spec=spec)

    drawn = lines(rows_of(*(record(ratio, sparsity) for ratio in (0.2, 0.3) for sparsity in (0.5, 0.9))))
    names = [f"vim_micro structured + wanda 1.structured.ratio={ratio}" for ratio in (0.2, 0.3)]
    assert sorted(line.name for line in drawn) == names and all(len(line.rows) == 2 for line in drawn)


def test_error_bars_reach_the_ends_of_the_interval() -> None:
    (trace,) = accuracy_figure(rows_of(*(fake_record(top1, seed=seed) for seed, top1 in enumerate((95.0, 96.0, 97.0)))))["data"]
    ends = [trace["y"][0] - trace["error_y"]["arrayminus"][0], trace["y"][0] + trace["error_y"]["array"][0]]
    assert trace["y"] == [96.0] and ends == pytest.approx([92.7029, 97.8420], abs=1e-4)


def test_two_seeds_have_no_error_bar() -> None:
    (trace,) = accuracy_figure(rows_of(fake_record(99.0, seed=0), fake_record(97.0, seed=1)))["data"]
    assert trace["error_y"]["array"] == trace["error_y"]["arrayminus"] == [0.0] and "98.00 (too few seeds), n = 2" in trace["text"][0]


def test_figures_for_papers_are_the_same_bytes_every_time(tmp_path: Path) -> None:
    shown = lines(rows_of(fake_record(97.0, model="a$b"), fake_record(90.0, model="a$b", pruning="magnitude-0.5")))
    first, again = (draw(shown, {}, "x", tmp_path / name) for name in "ab")
    assert [path.suffix for path in first] == [".svg", ".png"] and [path.read_bytes() for path in first] == [path.read_bytes() for path in again]


def test_long_names_leave_room_for_the_plot_and_stay_different() -> None:
    long = "a" * 100 + "b" * 100
    shown = fitting(["short", long, long + "c", "short", "a" * 200 + "b" * 100], 32)
    assert list(shown.values()) == ["short", "a" * 19 + "…" + "b" * 12, "a" * 19 + "…" + "b" * 11 + "c", "a" * 19 + "…" + "b" * 12 + " (2)"]
    (trace,) = accuracy_figure(rows_of(fake_record(97.0, model="m" * 200)))["data"]
    assert len(trace["name"]) == LEGEND and "m" * 200 in trace["text"][0], "hovering shows the whole name"


def test_every_key_has_a_figure_for_the_sparsity_and_each_cost(tmp_path: Path) -> None:
    rows = rows_of(fake_record(97.0))
    names = {path.stem for path in write_figures(rows, tmp_path)}
    assert names == {f"{rows[0].key.short}-{what}" for what in ("sparsity", *COSTS)}


def test_a_figure_of_a_cost_has_a_point_for_each_row_and_the_front() -> None:
    rows = rows_of(*(fake_record(top1, model=model, latency_ms=cost) for model, top1, cost in (("a", 90.0, 2.0), ("b", 95.0, 3.0), ("c", 80.0, 4.0))))
    *points, front = pareto_figure(rows, "latency_ms")["data"]
    assert {(trace["x"][0], trace["y"][0]) for trace in points} == {(2.0, 90.0), (3.0, 95.0), (4.0, 80.0)}
    assert (front["name"], front["x"], front["y"]) == ("front", [2.0, 3.0], [90.0, 95.0])
    assert pareto_figure(rows, "latency_ms")["layout"]["xaxis"]["title"]["text"] == "latency_ms (ms)"


def test_hovering_shows_the_row_its_accuracy_and_its_costs() -> None:
    (row,) = rows_of(*(fake_record(top1, model="<vim>", seed=seed) for seed, top1 in enumerate((95.0, 96.0, 97.0))))
    texts = hover(row).split("<br>")
    assert texts[:3] == ["&lt;vim&gt;, dense", "top-1 96.00 [92.70, 97.84], n = 3, rank 1", "sparsity 0%"]
    assert "latency_ms (ms): 5" in texts and len(texts) == 3 + len(COSTS)
