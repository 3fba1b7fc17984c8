import csv
import json
from pathlib import Path

import pytest

from analysis.leaderboard import publish
from tests.support.records import fake_grid, fake_record, fake_run


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_statistics_are_over_seeds(tmp_path: Path) -> None:
    run = fake_run(tmp_path, [fake_record(top1, seed=seed) for seed, top1 in enumerate((95.0, 96.0, 97.0))])
    publish([run], run)
    (row,) = table(run / "leaderboard.csv")
    got = [float(row[name]) for name in ("top1", "top1_std", "n", "top1_ci95_low", "top1_ci95_high")]
    assert got == pytest.approx([96, 1, 3, 92.7029, 97.8420], abs=1e-4) and row["settled"] == "true"


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


def test_holes_are_known_from_the_plan(tmp_path: Path) -> None:
    run = fake_run(tmp_path, [fake_record(97.0)])
    cells = {str(seed): {"stages": ["a"], **fake_record(97.0, seed=seed).spec} for seed in range(3)}
    (run / "plan.json").write_text(json.dumps({"grid": "fake", "cells": cells}))
    publish([run], run)
    (row,) = table(run / "leaderboard.csv")
    assert (row["n"], row["n_expected"]) == ("1", "3")
