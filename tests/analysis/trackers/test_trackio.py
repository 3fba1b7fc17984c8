"""Cells as runs of trackio, read back by trackio."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from analysis.trackers.trackio import moment
from tests.analysis.trackers.conftest import RECORDS, exported

READ = """
import json
from trackio.sqlite_storage import SQLiteStorage
print(json.dumps({str(name): SQLiteStorage.get_logs("fake", str(name)) for name in SQLiteStorage.get_runs("fake")}))
"""


def test_moments_are_in_utc() -> None:
    assert moment(60) == "1970-01-01T00:01:00+00:00"


@pytest.mark.slow
@pytest.mark.skipif(find_spec("trackio") is None, reason="could not import 'trackio'")
def test_each_cell_is_a_run_once(run: Path) -> None:
    exported(run, "trackio")
    exported(run, "trackio")
    surroundings = os.environ | {"TRACKIO_DIR": str(run / "exports" / "trackio")}
    read = subprocess.run([sys.executable, "-c", READ], check=True, capture_output=True, text=True, env=surroundings)
    runs = json.loads(read.stdout.splitlines()[-1])
    assert len(runs) == len(RECORDS)
    lines = next(lines for name, lines in runs.items() if RECORDS[0].id in name)
    assert [(line["step"], line["loss"]) for line in lines if "loss" in line] == [(1, 1.0), (2, 0.5), (3, 1.0)]
    assert lines[-1]["final/top1"] == 97.0
