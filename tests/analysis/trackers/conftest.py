"""A run folder of three cells, one of which has failed, and its cells as trackers see them."""

import subprocess
import sys
from pathlib import Path

import pytest

from analysis.trackers.tracked import Tracked, tracked_cells
from tests.support.records import fake_curve, fake_record, fake_run

RECORDS = [fake_record(97.0), fake_record(91.0, pruning="magnitude-0.9"), fake_record(None, pruning="random-0.5")]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The run folder; the stage that all cells share has two epochs, the last of the first cell one."""
    folder = fake_run(tmp_path / "fake", RECORDS)
    fake_curve(folder, RECORDS[0].stages[0], 2)
    fake_curve(folder, RECORDS[0].stages[1], 1)
    return folder


@pytest.fixture
def cells(run: Path) -> list[Tracked]:
    """The cells."""
    return list(tracked_cells(RECORDS, [run]))


def exported(run: Path, name: str) -> str:
    """What the command prints after an export in a process of its own, which is how people call it."""
    return subprocess.run([sys.executable, "-m", "analysis", str(run), "--export", name], check=True, capture_output=True, text=True).stdout
