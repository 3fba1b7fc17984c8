"""Cells as runs of MLflow, read back by MLflow."""

from pathlib import Path

import pytest

from analysis.trackers.mlflow import CELL_TAG, milliseconds, parts
from tests.analysis.trackers.conftest import RECORDS, exported


def test_lists_go_in_parts() -> None:
    assert parts([1, 2, 3], 2) == [[1, 2], [3]] and parts([], 2) == [] and milliseconds(1.5) == 1500


@pytest.mark.slow
def test_each_cell_is_a_run_once(run: Path) -> None:
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    from mlflow.tracking import MlflowClient

    exported(run, "mlflow")
    exported(run, "mlflow")
    client = MlflowClient(tracking_uri=f"sqlite:///{run / 'exports' / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("fake")
    runs = {found.data.tags[CELL_TAG]: found for found in client.search_runs([experiment.experiment_id])}
    assert len(runs) == len(RECORDS) == len(client.search_runs([experiment.experiment_id]))
    dense = runs[RECORDS[0].id]
    assert dense.data.metrics["final.top1"] == 97.0 and dense.data.params["spec.recipe.epochs"] == "12"
    assert [(point.step, point.value) for point in client.get_metric_history(dense.info.run_id, "loss")] == [(1, 1.0), (2, 0.5), (3, 1.0)]
    assert (dense.info.status, runs[RECORDS[2].id].info.status) == ("FINISHED", "FAILED")
