"""Cells as runs of trackio, read back by trackio."""

from pathlib import Path

import pytest

from analysis.merge import AnalysisError
from analysis.trackers.formats import export
from analysis.trackers.trackio import moment
from tests.analysis.trackers.conftest import RECORDS


def test_moments_are_in_utc() -> None:
    assert moment(60) == "1970-01-01T00:01:00+00:00"


def test_each_cell_is_a_run_once_and_a_process_writes_to_one_folder(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    export([run], run, "trackio")
    export([run], run, "trackio")
    from trackio.sqlite_storage import SQLiteStorage

    names = {str(name) for name in SQLiteStorage.get_runs("fake")}
    assert len(names) == len(RECORDS)
    lines = SQLiteStorage.get_logs("fake", next(name for name in names if RECORDS[0].id in name))
    assert [(line["step"], line["loss"]) for line in lines if "loss" in line] == [(1, 1.0), (2, 0.5), (3, 1.0)]
    assert lines[-1]["final/top1"] == 97.0
    with pytest.raises(AnalysisError, match="process of its own"):
        export([run], tmp_path / "elsewhere", "trackio")
