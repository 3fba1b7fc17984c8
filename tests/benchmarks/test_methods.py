from pathlib import Path

import pytest

from benchmarks.methods import LEVELS, table
from harness.grid.read import read_grid
from harness.plan.preflight import model_problems
from harness.plan.stages import make_graph
from models.pruning.registry import METHODS

GRID = Path(__file__).parents[2] / "benchmarks" / "grids" / "methods.yaml"


def row(pruning: str, top1: str, std: str = "") -> dict[str, str]:
    return {"pruning": pruning, "top1": top1, "top1_std": std, "epochs": "7", "n": "3", "key": "k"}


def test_methods_are_sorted_by_90_percent_and_bold_where_they_beat_their_random_baseline():
    rows = [
        row("dense", "97.51", "0.2"),
        row("random 90%", "60", "5"),
        row("random shuffle 90%", "55"),
        row("magnitude 50%", "97"),
        row("magnitude 90%", "95.04", "0.31"),
        row("structured 90%", "70"),
        row("structured random 90%", "80"),
        row("2:4 50%", "98.1"),
        row("wanda 90%", ""),
    ]
    assert table(rows) == [
        "| method | 50% | 80% | 90% | 95% | epochs at 90% |",
        "|---|---:|---:|---:|---:|---:|",
        "| dense | 97.5 ± 0.2 | | | | 7 |",
        "| magnitude | 97.0 |  | **95.0 ± 0.3** |  | 7 |",
        "| structured random |  |  | 80.0 |  | 7 |",
        "| structured |  |  | 70.0 |  | 7 |",
        "| random |  |  | 60.0 ± 5.0 |  | 7 |",
        "| random shuffle |  |  | 55.0 |  | 7 |",
        "| 2:4 | 98.1 |  |  |  |  |",
        "| wanda |  |  |  |  | 7 |",
    ]


LATER = {"sparsegpt", "block_removal", "token_merging"}  # than the runs behind the table in benchmarks/README.md


def test_the_grid_holds_every_method_at_the_levels_that_its_labels_say():
    grid = read_grid(GRID)
    assert {cell.method.name for cell in grid.cells} == set(METHODS) - LATER
    for cell in grid.cells:
        name, _, level = cell.pruning.rpartition(" ")
        if name not in ("", "2:4"):
            assert int(level.removesuffix("%")) in LEVELS
            share = cell.method.ratio if hasattr(cell.method, "ratio") else cell.method.sparsity
            assert share == pytest.approx(float(level.removesuffix("%")) / 100, abs=2e-3), cell.pruning
    assert {cell.seed for cell in grid.cells} == {0, 1, 2}


def test_rewinding_shares_the_dense_trainings_of_the_grid_and_every_target_is_in_reach():
    grid = read_grid(GRID)
    plan = make_graph(grid.cells)
    trunks = {plan.paths[cell.id][0] for cell in grid.cells if cell.pruning in ("dense", "IMP 50%", "IMP 95%", "wanda 80%", "structured 90%")}
    assert len(trunks) == 3
    assert model_problems(grid, grid.cells) == []


def test_a_name_does_not_break_the_table():
    (*_, line) = table([row("a|b\n 90%", "60")])
    assert line.startswith(r"| a\|b\\n |") and "\n" not in line
