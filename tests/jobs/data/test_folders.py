"""Folders of images: what is read, what is left out and said, and an identity made of every file."""

import os
from pathlib import Path

import pytest

from jobs.data.folders import imagefolder_identity, imagefolder_notes, imagefolder_problems
from jobs.data.sources import READERS
from jobs.experiment.specs import DataSpec
from tests.jobs.data.test_sources import write_folder


@pytest.fixture
def data(tmp_path: Path) -> DataSpec:
    """Two classes of three images each, for training and for tests."""
    for part in ("train", "val"):
        write_folder(tmp_path / part)
    return DataSpec(source="imagefolder", path=str(tmp_path))


def test_a_usable_folder_has_no_problem_and_no_note(data: DataSpec) -> None:
    assert imagefolder_problems(data) == [] and imagefolder_notes(data) == []


def test_hidden_files_and_folders_are_left_out_at_every_level(data: DataSpec, tmp_path: Path) -> None:
    cat = tmp_path / "train" / "cat"
    (cat / ".ipynb_checkpoints").mkdir()
    for copy in (cat / ".ipynb_checkpoints" / "0.png", cat / "._0.png"):
        copy.write_bytes((cat / "0.png").read_bytes())
    (tmp_path / "train" / ".hidden").mkdir()
    assert len(READERS["imagefolder"].read(data, 32).train.labels) == 6


def test_a_class_without_images_and_endings_that_are_not_read_are_named(data: DataSpec, tmp_path: Path) -> None:
    (tmp_path / "train" / "dog").mkdir()
    (tmp_path / "train" / "dog" / "a.gif").touch()
    (problem,) = imagefolder_problems(data)
    assert "class folders without an image (1): dog" in problem and ".gif" in problem


def test_a_single_class_is_no_classification(tmp_path: Path) -> None:
    for part in ("train", "val"):
        write_folder(tmp_path / part, classes=("cat",))
    (problem,) = imagefolder_problems(DataSpec(source="imagefolder", path=str(tmp_path)))
    assert "holds a single class, cat" in problem


def test_the_identity_notices_a_changed_file_and_one_in_a_sub_folder(data: DataSpec, tmp_path: Path) -> None:
    first = imagefolder_identity(data, by_content=False)
    assert imagefolder_identity(data, by_content=False) == first
    image = tmp_path / "train" / "cat" / "0.png"
    os.utime(image, ns=(0, 1))
    second = imagefolder_identity(data, by_content=False)
    (tmp_path / "train" / "cat" / "more").mkdir()
    (tmp_path / "train" / "cat" / "more" / "9.png").write_bytes(image.read_bytes())
    assert len({str(first), str(second), str(imagefolder_identity(data, by_content=False))}) == 3


def test_the_identity_by_content_is_that_of_the_bytes_alone(data: DataSpec, tmp_path: Path) -> None:
    first = imagefolder_identity(data, by_content=True)
    os.utime(tmp_path / "train" / "cat" / "0.png", ns=(0, 1))
    assert imagefolder_identity(data, by_content=True) == first
