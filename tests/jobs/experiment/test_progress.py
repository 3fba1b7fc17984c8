"""The progress of a stage on disk."""

import json
from pathlib import Path

import pytest

from jobs.experiment.progress import StageProgress, read_progress, write_progress

PROGRESS = StageProgress(epoch=1, epochs=4, step=25, steps=100, loss=0.5, img_per_s=100.0, eta_s=75.0, val_top1=None, time=0.0)


def test_progress_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_progress(tmp_path / "progress.json", PROGRESS)
    assert read_progress(tmp_path) == PROGRESS


def test_a_loss_that_is_no_number_does_not_hide_the_rest(tmp_path: Path) -> None:
    (tmp_path / "progress.json").write_text(json.dumps({**vars(PROGRESS), "loss": float("nan")}))
    progress = read_progress(tmp_path)
    assert progress is not None and progress.epoch == 1 and progress.loss != progress.loss


@pytest.mark.parametrize("content", [None, "", '{"epoch": 1', "[]", '{"epoch": "one"}'])
def test_a_file_that_is_absent_torn_or_of_another_kind_is_no_progress(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "progress.json").write_text(content)
    assert read_progress(tmp_path) is None


def test_the_time_spent_follows_from_the_time_to_go() -> None:
    assert PROGRESS.spent_s == 25.0
    assert StageProgress(**{**vars(PROGRESS), "eta_s": None}).spent_s == 0.0, "before the first step"
    assert StageProgress(**{**vars(PROGRESS), "step": 100, "eta_s": 0.0}).spent_s == 0.0, "after the last"
