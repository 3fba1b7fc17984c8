"""Cells as runs of MLflow, in a database file that `mlflow ui` shows."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from analysis.trackers.tracked import Tracked

AT_ONCE: Final = {"metrics": 1000, "params": 100}  # the most that MLflow takes in a call
LONGEST: Final = 6000  # characters of a parameter
CELL_TAG: Final = "vssm_bench.cell"


def write(cells: Iterable[Tracked], folder: Path) -> str:
    """Writes a run for each cell, with the cell's id as a tag, into experiments named after the grids. Returns how to look at them."""
    from mlflow.tracking import MlflowClient

    folder.mkdir(parents=True, exist_ok=True)
    store = f"sqlite:///{(folder / 'mlflow.db').resolve()}"
    client = MlflowClient(tracking_uri=store)
    experiments: dict[str, str] = {}
    for cell in cells:
        if cell.group not in experiments:
            experiments[cell.group] = client.create_experiment(cell.group, artifact_location=(folder / "artifacts").resolve().as_uri())
        write_run(client, experiments[cell.group], cell)
    return f"mlflow ui --backend-store-uri {store}"


def write_run(client: Any, experiment: str, cell: Tracked) -> None:
    """Writes one run with its times, parameters, curves and final numbers."""
    from mlflow.entities import Metric, Param

    tags = {CELL_TAG: cell.id, **({"failure": cell.failure[:LONGEST]} if cell.failure else {})}
    run = client.create_run(experiment, start_time=milliseconds(cell.started), run_name=cell.name, tags=tags).info.run_id
    params = [Param(name, str(value)[:LONGEST]) for name, value in cell.settings.items()]
    curves = [Metric(name, value, milliseconds(point.time), point.step) for point in cell.points for name, value in point.values.items()]
    final = [Metric(f"final.{name}", value, milliseconds(cell.finished), 0) for name, value in cell.final.items()]
    for part in parts(params, AT_ONCE["params"]):
        client.log_batch(run, params=part)
    for part in parts([*curves, *final], AT_ONCE["metrics"]):
        client.log_batch(run, metrics=part)
    client.set_terminated(run, status="FAILED" if cell.failure else "FINISHED", end_time=milliseconds(cell.finished))


def parts(items: Sequence[Any], most: int) -> list[Sequence[Any]]:
    """A list in parts of at most so many items."""
    return [items[start : start + most] for start in range(0, len(items), most)]


def milliseconds(seconds: float) -> int:
    """A time as MLflow counts it."""
    return round(1000 * seconds)
