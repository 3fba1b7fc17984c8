"""The columns: their values, units and meanings."""

import csv
from pathlib import Path

import pytest

from analysis.columns import CELLS, COLUMNS, LEADERBOARD, cell_line, ratio, scaled
from analysis.leaderboard import publish
from tests.support.records import fake_environment, fake_record, fake_run, rows_of


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_column_stands_in_its_place_with_its_unit(tmp_path: Path) -> None:
    run = fake_run(tmp_path, [fake_record(97.0), fake_record(90.0, pruning="magnitude-0.5")])
    publish([run], run)
    dense, pruned = table(run / "leaderboard.csv")
    assert list(dense)[:6] == ["rank", "model", "pruning", "top1", "top1_std", "n"] and list(dense)[-1] == "cells"
    expected = {
        "rank": "2",
        "model": "vim_micro",
        "pruning": "magnitude-0.5",
        "top1": "90",
        "top1_std": "",
        "n": "1",
        "settled": "false",
        "top1_vs_dense": "-7",
        "sparsity": "0.5",
        "sparsity_all": "0.4",
        "param_count": "0.17",
        "params": "170000",
        "params_nonzero": "102000",
        "infer_gmacs": "0.012",
        "gmacs_nonzero": "0.0072",
        "gmacs_dense": "0.012",
        "uncounted_share": "0.03",
        "speedup_theoretical": "1.6666667",
        "speedup_structural": "1",
        "speedup_measured": "1",
        "latency_ms": "5",
        "latency_p90_ms": "6",
        "latency_p99_ms": "8",
        "clock_mhz": "2600",
        "train_gpu_h": "",
        "train_cpu_h": "0.5",
        "train_wh": "2",
        "infer_j_per_img": "0.25",
        "infer_samples_per_sec": "400",
        "infer_step_time": "160",
        "infer_batch_size": "64",
        "peak_memory_mb": "300",
        "train_peak_memory_mb": "900",
        "file_mb": "0.68",
        "train_samples_per_sec": "250",
        "epochs": "16",
        "train_s": "60",
        "loader": "ffcv",
        "dtype": "fp32",
        "device": "Example CPU (avx2)",
    }
    assert {name: pruned[name] for name in expected} == expected


def test_a_smaller_network_has_figures_before_and_after_it_was_cut(tmp_path: Path) -> None:
    cut = {"params": 60_000, "params_nonzero": 50_000, "macs_structural": 3_000_000, "macs_nonzero": 2_000_000, "speedup_measured": 2.5}
    run = fake_run(tmp_path, [fake_record(97.0, pruning="early_bird-0.5", **cut)])
    publish([run], run)
    (row,) = table(run / "leaderboard.csv")
    expected = {"params_dense": 170_000, "params": 60_000, "compression": 3.4, "gmacs_dense": 0.012, "infer_gmacs": 0.003, "gmacs_nonzero": 0.002}
    expected |= {"speedup_theoretical": 6.0, "speedup_structural": 4.0, "speedup_measured": 2.5}
    assert {name: float(row[name]) for name in expected} == pytest.approx(expected)


def test_a_cell_tells_its_notes_and_every_number_of_its_record(tmp_path: Path) -> None:
    run = fake_run(tmp_path, [fake_record(97.0, notes=["a", "b"])])
    publish([run], run)
    (cell,) = table(run / "cells.csv")
    assert (cell["notes"], cell["uncounted_ops"], cell["dense_latency_ms"], cell["train_j"]) == ("a; b", "aten::gelu", "5.1", "7200")


def test_every_column_is_explained_in_the_readme() -> None:
    page = (Path(__file__).parents[2] / "docs" / "leaderboard.md").read_text()
    assert [column.name for column in LEADERBOARD if f"| `{column.name}` | {column.unit} | {column.meaning} |" not in page] == []


def test_unknown_values_stay_unknown() -> None:
    assert (scaled(None, 2), scaled(3, 2)) == (None, 6)
    assert (ratio(None, 2), ratio(2, None), ratio(2, 0), ratio(3, 2)) == (None, None, None, 1.5)


def test_a_failed_cell_has_its_failure_and_no_metrics() -> None:
    record = fake_record(None)
    (row,) = rows_of(record)
    line = cell_line(record, row)
    assert set(line) <= set(CELLS) and "top1" not in line
    assert (line["status"], line["failure"], line["failed_stage"], line["collapsed"]) == ("failed", "diverged", record.stages[-1], None)


def test_collapsed_parameters_and_commits_are_those_of_any_seed() -> None:
    changed = fake_environment(commit="f" * 40, dirty=True)
    (row,) = rows_of(fake_record(97.0, seed=0, collapsed=["b", "a"]), fake_record(96.0, seed=1, collapsed=["b"], environment=changed))
    assert COLUMNS["collapsed"].read(row) == "a b" and COLUMNS["commit"].read(row) == f"0123456789 {'f' * 10}+"


def test_an_official_checkpoint_stands_beside_its_published_figure() -> None:
    official, pruned = rows_of(
        fake_record(76.0, published_top1=76.1, published_top5=93.0, published_source="x"),
        fake_record(75.0, pruning="magnitude-0.5"),
    )
    figures = [[COLUMNS[name].read(row) for name in ("published_top1", "published_top5", "top1_vs_published")] for row in (official, pruned)]
    assert figures == [[76.1, 93.0, pytest.approx(-0.1)], [None, None, None]]
