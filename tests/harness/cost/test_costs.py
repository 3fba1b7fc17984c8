"""--estimate and --budget as a user gives them to a launch. Times are made by hand, so that nothing is timed and nothing trains."""

import json
import os
import shutil
from pathlib import Path

import pytest

from harness import launch as module
from harness.grid.read import Grid, read_grid
from harness.launch import NOTHING_TO_DO, OK, USAGE, main
from tests.support.jobs import GRID
from tests.support.times import keep_times

BUDGET = "4m"  # for the dense rows and one row of magnitude


@pytest.fixture
def grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Grid:
    """A grid of six cells in the current folder, whose model was timed before; launches of it run nothing and succeed."""
    monkeypatch.chdir(tmp_path)
    Path("grid.yaml").write_text(GRID.replace("STAGES", "1"))
    grid = read_grid(Path("grid.yaml"))
    keep_times(grid, Path("runs"))
    return grid


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of cells with which grids were launched."""
    counts: list[int] = []

    def launch(grid: Grid, *_: object) -> int:
        counts.append(len(grid.cells))
        return OK

    monkeypatch.setattr(module, "launch", launch)
    return counts


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


@pytest.mark.usefixtures("grid")
def test_a_dry_run_with_a_budget_shows_the_choice_and_keeps_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grid.yaml", "--dry-run", "--budget", BUDGET]) == OK
    shown = lines(capsys)
    assert shown[:3] == [
        "budget of 4m: 4 of 6 cells (2 of 3 rows) for about 0.0648 core-hours",
        "  chosen    vim_micro: dense, magnitude(0.5)",
        "  left out  vim_micro: magnitude(0.9)",
    ]
    assert "small: 4 cells (seeds 0, 1)" in shown and not Path("runs/small").exists()


@pytest.mark.usefixtures("grid")
def test_a_launch_with_a_budget_runs_the_choice_and_every_later_one_keeps_to_it(launched: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grid.yaml", "--budget", BUDGET]) == OK and launched == [4]
    assert len(json.loads(Path("runs/small/budget.json").read_bytes())["chosen"]) == 4
    lines(capsys)
    for again in (["grid.yaml"], ["grid.yaml", "--budget", BUDGET]):
        assert main(again) == OK and launched[-1] == 4
        assert lines(capsys)[0].startswith("this run keeps to the 4 of 6 cells chosen for its budget of 4m on ")
    assert main(["grid.yaml", "--budget", "1h"]) == OK and launched[-1] == 6
    assert json.loads(Path("runs/small/budget.json").read_bytes())["budget"] == "1h"


@pytest.mark.usefixtures("grid")
def test_no_budget_takes_all_cells_again(launched: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grid.yaml", "--budget", BUDGET]) == OK
    assert main(["grid.yaml", "--dry-run", "--budget", "none"]) == OK and Path("runs/small/budget.json").exists()
    assert main(["grid.yaml", "--budget", "none"]) == OK and launched == [4, 6]
    assert "the budget of 4m holds no longer: this run has 6 cells again" in lines(capsys) and not Path("runs/small/budget.json").exists()
    assert main(["grid.yaml", "--budget", "none"]) == OK and launched == [4, 6, 6]


@pytest.mark.usefixtures("grid", "launched")
def test_no_budget_holds_no_budget_though_nothing_is_left_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["grid.yaml", "--budget", BUDGET]) == OK
    monkeypatch.setattr(module, "to_run", lambda *_: ((), frozenset()))
    monkeypatch.setattr(module, "publish", lambda run: True)
    assert main(["grid.yaml"]) == NOTHING_TO_DO and Path("runs/small/budget.json").exists()
    assert main(["grid.yaml", "--budget", "none"]) == NOTHING_TO_DO and not Path("runs/small/budget.json").exists()


def test_an_estimate_of_a_finished_run_in_another_folder_is_learned_from_it(
    honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(honest, tmp_path / "runs" / "before")
    text = (honest.parents[1] / "grid.yaml").read_text()
    Path("grid.yaml").write_text(text.replace("name: honest", "name: after"))
    assert main(["grid.yaml", "--dry-run", "--estimate"]) == OK
    shown = lines(capsys)
    assert "cost of what is left: 10 cells, 12 jobs, in core-hours" in shown
    assert any(line.startswith("sharing stages") for line in shown), "it saves nothing where the start of a job takes longer than a training"
    assert any(": learned from 10 records (" in line for line in shown) and sorted(os.listdir("runs")) == ["before"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--budget", "200"], "--budget 200: expected a time such as 200h, 90m or 2d, or none"),
        (["--estimate"], "--estimate goes with --dry-run"),
        (["--budget", "1m"], "the dense and random rows of all models need 0.0415 hours, and the budget has 0.0167: raise it to at least 0.0416h"),
    ],
)
@pytest.mark.usefixtures("grid")
def test_what_cannot_be_is_refused_before_anything_is_launched(
    arguments: list[str], sentence: str, launched: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["grid.yaml", *arguments]) == USAGE and sentence in capsys.readouterr().err
    assert not launched and not Path("runs/small").exists()
