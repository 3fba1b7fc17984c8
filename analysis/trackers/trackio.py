"""Cells as runs of trackio, in a local folder that `trackio show` reads."""

import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from analysis.merge import AnalysisError
from analysis.trackers.tracked import Tracked


def write(cells: Iterable[Tracked], folder: Path) -> str:
    """Writes a run for each cell, with the cell's id, into projects named after the grids; nothing is sent. Returns how to look at them.

    trackio takes its folder from TRACKIO_DIR when it is imported. Raises AnalysisError if this process has imported it with another one.
    """
    os.environ["TRACKIO_DIR"] = str(folder.resolve())
    from trackio.sqlite_storage import SQLiteStorage
    from trackio.utils import TRACKIO_DIR

    if Path(TRACKIO_DIR) != folder.resolve():
        raise AnalysisError(f"trackio writes to {TRACKIO_DIR} already, not to {folder}: export from a process of its own")
    for cell in cells:
        lines = [dict(point.values) for point in cell.points]
        last = cell.points[-1].step if cell.points else 0
        final = {f"final/{name}": value for name, value in cell.final.items()} or {"failed": 1.0}
        SQLiteStorage.bulk_log(
            project=cell.group,
            run=cell.name,
            run_id=cell.id,
            metrics_list=[*lines, final],
            steps=[*(point.step for point in cell.points), last],
            timestamps=[*(moment(point.time) for point in cell.points), moment(cell.finished)],
            config={**cell.settings, **({"failure": cell.failure} if cell.failure else {})},
        )
    return f"TRACKIO_DIR={folder.resolve()} trackio show"


def moment(seconds: float) -> str:
    """Seconds since 1970 in ISO 8601, UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()
