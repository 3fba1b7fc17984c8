"""Data that a launch writes before its jobs; tests/harness/test_prepare.py tests the command."""

from pathlib import Path

import pytest

from harness.submit.data_first import described, prepare_here, title
from jobs.data.space import Space
from jobs.data.writing import Progress
from jobs.experiment.specs import ClusterSpec, DataSpec

DATA = DataSpec(source="synthetic", samples=20, img_size=16, loader="torch")


def test_a_launch_says_nothing_of_data_that_is_ready(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cluster = ClusterSpec(cache=str(tmp_path))
    assert prepare_here(cluster, [DATA], workers=1, quiet=True)
    assert "synthetic: ready in" in capsys.readouterr().out
    assert prepare_here(cluster, [DATA], workers=1, quiet=True)
    assert capsys.readouterr().out == ""


def test_progress_has_a_rate_and_the_time_left_of_what_is_written_here() -> None:
    progress = Progress(images=400, total=1000, here=100, space=Space(needed_bytes=1, free_bytes=2))
    assert described(DATA, progress, seconds=10) == "synthetic: 400 of 1,000 images, 10 images/s, 1:00 left"


def test_the_first_images_give_no_rate_because_the_start_counts_most() -> None:
    progress = Progress(images=1, total=1797, here=1, space=Space(needed_bytes=1, free_bytes=2))
    assert described(DATA, progress, seconds=1) == "synthetic: 1 of 1,797 images"


def test_a_data_set_is_called_by_its_name_or_its_folder() -> None:
    data = DataSpec(source="imagefolder", path="/data/imagenet")
    assert title(data) == "imagefolder /data/imagenet" and title(DataSpec(source="imagefolder", path="/x", name="ImageNet")) == "ImageNet"
