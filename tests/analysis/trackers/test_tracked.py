"""Cells as trackers see them."""

import json
from pathlib import Path

from analysis.trackers.formats import export
from analysis.trackers.tracked import Tracked, file_name, flat, measured, points, seconds, tracked_cells
from jobs.experiment.run_folder import RunFolder
from tests.analysis.trackers.conftest import RECORDS
from tests.support.records import evil_run


def test_a_cell_has_its_id_settings_numbers_and_the_failure(cells: list[Tracked]) -> None:
    dense, _, failed = cells
    assert (dense.id, dense.group, dense.final["top1"], dense.failure) == (RECORDS[0].id, "fake", 97.0, None)
    assert dense.settings["spec.recipe.epochs"] == 12 and dense.settings["pruning"] == "dense" and "gpu" not in dense.settings
    assert failed.final == {} and failed.failure == "diverged: loss is nan at step 7"
    assert dense.finished - dense.started == 60


def test_the_curves_of_all_stages_are_one_with_steps_that_go_on(cells: list[Tracked]) -> None:
    assert [(point.step, point.values["loss"], point.values["val_top1"]) for point in cells[0].points] == [
        (1, 1.0, 91.0),
        (2, 0.5, 92.0),
        (3, 1.0, 91.0),
    ]
    assert cells[0].points[0].values["lr"] == 1e-3  # from the line of the same step
    assert [len(cell.points) for cell in cells] == [3, 2, 2]


def test_torn_lines_and_numbers_that_are_none_are_left_out(run: Path) -> None:
    path = RunFolder(run).stage_dir(RECORDS[0].stages[0]) / "metrics.jsonl"
    path.write_text(json.dumps({"event": "step", "step": 5, "loss": float("nan"), "lr": 0.1}) + "\n[1]\n{torn")
    first = points(RECORDS[0], [run])[0]
    assert (first.step, dict(first.values)) == (5, {"lr": 0.1})
    assert measured({"loss": True, "step": 1, "img_per_s": 3}) == {"img_per_s": 3.0}


def test_a_second_result_of_a_cell_is_a_run_of_its_own(run: Path) -> None:
    twice = list(tracked_cells([*RECORDS, RECORDS[0]], [run]))
    assert [cell.id for cell in twice][::3] == [RECORDS[0].id, f"{RECORDS[0].id}-2"]
    assert len({cell.name for cell in twice}) == 4 and twice[0].settings["speed_protocol"] == "forward pass, fp32, batch 1 and 64"


def test_a_strangers_grid_leads_nowhere_else(tmp_path: Path) -> None:
    record = RECORDS[0].model_copy(update={"grid": "../../etc"})
    assert next(tracked_cells([record], [])).group == "_.._etc" and file_name("") == file_name("..") == "_"
    run = evil_run(tmp_path / "evil")
    export([run], tmp_path / "out", "every_eval_ever")
    assert len(list((tmp_path / "out" / "exports" / "every_eval_ever").glob("*/*.json"))) == 1


def test_settings_are_flat_and_moments_are_seconds() -> None:
    assert flat({"a": {"b": None, "c": [1, 2], "d": {"e": False}}}) == {"a.c": "[1, 2]", "a.d.e": False}
    assert seconds("1970-01-01T00:01:00+00:00") == 60 and seconds("someday") == 0
