import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from analysis.__main__ import main
from analysis.columns import LEADERBOARD
from analysis.leaderboard import publish
from analysis.printing import counted
from tests.support.records import fake_environment, fake_grid, fake_record, fake_run


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


def test_the_statistics_are_over_seeds(tmp_path: Path) -> None:
    run = fake_run(tmp_path, [fake_record(top1, seed=seed) for seed, top1 in enumerate((95.0, 96.0, 97.0))])
    publish([run], run)
    (row,) = table(run / "leaderboard.csv")
    got = [float(row[name]) for name in ("top1", "top1_std", "n", "top1_ci95_low", "top1_ci95_high")]
    assert got == pytest.approx([96, 1, 3, 93.5159, 98.4841], abs=1e-4) and row["settled"] == "true"  # t(0.975, 2) = 4.3027


def test_a_row_can_be_traced_to_its_cells(tmp_path: Path) -> None:
    run = fake_run(tmp_path, fake_grid())
    publish([run], run)
    cells = {line["cell"]: line for line in table(run / "cells.csv")}
    for row in table(run / "leaderboard.csv"):
        traced = [float(cells[cell]["top1"]) for cell in row["cells"].split()]
        assert sum(traced) / len(traced) == pytest.approx(float(row["top1"]), abs=1e-6)


def test_a_failed_cell_never_becomes_a_number(tmp_path: Path) -> None:
    run = fake_run(tmp_path, [fake_record(97.0), fake_record(None, pruning="magnitude-0.9")])
    publish([run], run)
    lost = table(run / "leaderboard.csv")[1]
    assert (lost["rank"], lost["top1"], lost["n"], lost["failed"]) == ("", "", "0", "1 diverged")
    assert {line["status"]: line["top1"] for line in table(run / "cells.csv")} == {"done": "97", "failed": ""}


def test_the_tables_are_the_same_bytes_every_time(tmp_path: Path) -> None:
    run = fake_run(tmp_path, [*fake_grid(), fake_record(None, pruning="magnitude-0.9", seed=7)])
    first = {path: path.read_bytes() for path in (publish([run], run).leaderboard, run / "cells.csv")}
    publish([run], run)
    assert {path: path.read_bytes() for path in first} == first


def test_main_prints_the_table_and_the_paths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = fake_run(tmp_path, fake_grid())
    assert main([str(run)]) == 0
    out = capsys.readouterr().out
    assert "vim_micro+se" in out and "magnitude-0.9" in out and str(run / "leaderboard.csv") in out


def test_boards_of_different_keys_are_printed_apart_and_say_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = fake_run(tmp_path, [fake_record(97.0), fake_record(96.0, model="b", environment=fake_environment(gpu="Example GPU"))])
    assert main([str(run)]) == 0
    out = capsys.readouterr().out
    assert "2 leaderboards: rows that differ in device are not ranked together" in out and "device Example GPU" in out


def test_a_long_value_that_differs_is_told_by_its_hash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = [fake_record(97.0, model=name, flops_convention=f"{'words ' * 20}{name}") for name in "ab"]
    assert main([str(fake_run(tmp_path, long))]) == 0
    titles = [line for line in capsys.readouterr().out.splitlines() if line.startswith("leaderboard ")]
    assert len(set(titles)) == 2 and all("flops_convention #" in title for title in titles)


def test_a_flood_of_bad_files_is_counted_and_not_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = fake_run(tmp_path, [fake_record(97.0)])
    for i in range(30):
        (run / "cells" / f"bad{i:02}").mkdir()
        (run / "cells" / f"bad{i:02}" / "record.json").write_text("{")
    assert main([str(run)]) == 0
    out = capsys.readouterr().out
    assert out.count("torn, or not JSON") == 20 and "and 10 more" in out
    assert (run / "report.html").read_text().count("torn, or not JSON") == 30


def test_labels_are_printed_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(fake_run(tmp_path, [fake_record(97.0, model="[red]vim[/red]")]))])
    assert "[red]vim[/red]" in capsys.readouterr().out


def test_an_empty_folder_exits_2_with_a_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "has no folder 'cells'" in capsys.readouterr().err


def test_several_folders_need_an_output_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = (fake_run(tmp_path / name, [fake_record(97.0)]) for name in "ab")
    assert main([str(a), str(b)]) == 2
    assert "-o" in capsys.readouterr().err
    assert main([str(a), str(b), "-o", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "leaderboard.csv").exists()


def test_holes_are_known_from_the_plan(tmp_path: Path) -> None:
    run = fake_run(tmp_path, [fake_record(97.0)])
    cells = {str(seed): {"stages": ["a"], **fake_record(97.0, seed=seed).spec} for seed in range(3)}
    (run / "plan.json").write_text(json.dumps({"grid": "fake", "cells": cells}))
    publish([run], run)
    (row,) = table(run / "leaderboard.csv")
    assert (row["n"], row["n_expected"]) == ("1", "3")


@pytest.mark.parametrize(("value", "text"), [(999.4, "999"), (12_345, "12.3k"), (999_600, "1M"), (4.56e9, "4.56G"), (None, "")])
def test_large_numbers_are_told_in_three_digits(value: float | None, text: str) -> None:
    assert counted(value) == text


def test_every_column_is_explained_in_the_readme() -> None:
    told = (Path(__file__).parents[2] / "docs" / "leaderboard.md").read_text()
    assert [column.name for column in LEADERBOARD if f"| `{column.name}` | {column.unit} | {column.meaning} |" not in told] == []


def loaded_by(arguments: list[str]) -> set[str]:
    """The packages that a run of the analysis imports."""
    code = f"import sys; from analysis.__main__ import main; main({arguments!r}); print(*{{name.split('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    return set(run.stdout.splitlines()[-1].split())


def test_analysis_never_imports_torch_and_start_up_stays_light(tmp_path: Path) -> None:
    run = fake_run(tmp_path, [fake_record(97.0)])
    assert not {"torch", "pandas", "matplotlib"} & loaded_by([str(run)])
    assert not {"scipy", "numpy", "jinja2", "plotly"} & loaded_by([str(tmp_path / "nowhere")])
