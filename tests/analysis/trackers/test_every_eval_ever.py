"""Cells in the format of every_eval_ever 0.3.0, whose rules the test states as its schema has them."""

import json
from pathlib import Path

import pytest

from analysis.trackers.every_eval_ever import evaluation, results, standard_error, write
from analysis.trackers.tracked import Tracked

REQUIRED = {"schema_version", "evaluation_id", "retrieved_timestamp", "source_metadata", "model_info", "eval_library", "evaluation_results"}


def test_a_cell_is_a_whole_evaluation(cells: list[Tracked]) -> None:
    given = evaluation(cells[0])
    assert given.keys() == REQUIRED | {"evaluation_timestamp"}
    assert given["model_info"].keys() == {"name", "id", "additional_details"}
    assert all(isinstance(value, str) for value in given["model_info"]["additional_details"].values())
    assert {"deployment_type", "model_availability", "spec.recipe.lr", "latency_ms"} <= given["model_info"]["additional_details"].keys()


def test_its_results_are_accuracies_with_their_errors(cells: list[Tracked]) -> None:
    top1, top5 = results(cells[0], "0")
    assert (top1["score_details"]["score"], top1["metric_config"]["metric_parameters"]) == (97.0, {"k": 1})
    assert top1["score_details"]["uncertainty"] == {
        "standard_error": {"value": pytest.approx(100 * (0.97 * 0.03 / 360) ** 0.5), "method": "analytic"},
        "num_samples": 360,
    }
    assert top5["metric_config"]["metric_parameters"] == {"k": 5} and top5["source_data"]["source_type"] == "other"
    assert standard_error(50.0, 100) == 5.0


def test_cells_without_numbers_have_no_file(cells: list[Tracked], tmp_path: Path) -> None:
    write(cells, tmp_path / "out")
    files = sorted((tmp_path / "out").rglob("*.json"))
    assert {path.stem for path in files} == {cell.id for cell in cells[:2]}
    assert json.loads(files[0].read_text())["schema_version"] == "0.3.0"
