"""Cells in TensorBoard's files, read back by TensorBoard."""

from pathlib import Path

import pytest

from analysis.trackers.tensorboard import described, write
from analysis.trackers.tracked import Tracked
from tests.analysis.trackers.conftest import RECORDS


def test_the_settings_are_a_table(cells: list[Tracked]) -> None:
    assert "| spec.recipe.epochs | 12 |" in described(cells[0]) and "| failure | diverged" in described(cells[2])


def test_tensorboard_reads_the_curves_and_the_final_numbers(run: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from analysis.trackers.formats import export

    export([run], run, "tensorboard")
    export([run], run, "tensorboard")
    folder = run / "exports" / "tensorboard" / "fake" / RECORDS[0].id
    assert len(list(folder.iterdir())) == 1
    read = accumulator.EventAccumulator(str(folder))
    read.Reload()
    assert [(event.step, event.value) for event in read.Scalars("loss")] == [(1, 1.0), (2, 0.5), (3, 1.0)]
    assert [event.value for event in read.Scalars("final/top1")] == [97.0]
    assert "settings" in str(read.Tags()["tensors"]) and write([], run) == f"tensorboard --logdir {run}"
