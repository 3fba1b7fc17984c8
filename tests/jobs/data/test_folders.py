"""Folders of images: what is read, what is left out and said, and an identity made of every file."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.data.folders import imagefolder_identity, imagefolder_look, imagefolder_problems
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
    assert imagefolder_problems(data) == []
    look = imagefolder_look(data)
    assert (look.problems, look.notes) == ([], []) and look.labels is not None and look.labels.tolist() == [0, 0, 0, 1, 1, 1]


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


def test_links_are_followed(data: DataSpec, tmp_path: Path) -> None:
    cat = tmp_path / "train" / "cat"
    cat.rename(tmp_path / "elsewhere")
    cat.mkdir()
    (cat / "part1").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "train" / "dog").symlink_to(tmp_path / "elsewhere")
    assert imagefolder_problems(data) == []
    assert READERS["imagefolder"].read(data, 32).train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_links_that_lead_nowhere_or_back_are_named_all_at_once(data: DataSpec, tmp_path: Path) -> None:
    train = tmp_path / "train"
    (train / "cat" / "up").symlink_to(train)
    (train / "cat" / "again.png").symlink_to("again.png")
    (train / "cat" / "gone.png").symlink_to(tmp_path / "nowhere")
    (train / "dog").symlink_to(tmp_path / "nowhere")
    os.mkfifo(train / "ant" / "pipe.png")
    problems = "\n".join(imagefolder_problems(data))
    assert "links that lead nowhere (3): cat/again.png, cat/gone.png, dog: mend or remove them" in problems
    assert "links that lead back to a folder above them (1): cat/up" in problems
    assert "names of images that are no regular files (1): ant/pipe.png" in problems


def test_empty_files_are_known_at_a_launch_with_all_that_is_wrong(data: DataSpec, tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / "train" / "cat" / f"empty{number:02}.jpg").touch()
    (tmp_path / "val" / "ant" / "page.png").write_text("<html>")
    (tmp_path / "val" / "dog").mkdir()
    assert len(imagefolder_problems(data)) == 2  # a job that finds the data written asks for no sizes
    strange, empty, no_class, undecodable = imagefolder_look(data).problems
    assert "class folders that" in strange and "dog" in strange and "class folders without an image (1): dog" in no_class
    assert f"{tmp_path}/train: images of 0 bytes (12): cat/empty00.jpg, " in empty and "cat/empty09.jpg and 2 more: copy them again" in empty
    assert f"{tmp_path}/val/ant/page.png (its content is no image of a known format): replace or remove them" in undecodable


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_cannot_be_read_is_named(data: DataSpec, tmp_path: Path) -> None:
    (tmp_path / "train" / "cat").chmod(0)
    try:
        assert "files and folders that cannot be read (1): cat (Permission denied)" in "\n".join(imagefolder_problems(data))
    finally:
        (tmp_path / "train" / "cat").chmod(0o700)


def test_no_more_than_ten_names_are_listed(data: DataSpec, tmp_path: Path) -> None:
    for number in range(14):
        (tmp_path / "train" / f"empty{number:02}").mkdir()
    (problem,) = imagefolder_problems(data)
    assert "class folders without an image (14): empty00, " in problem and "empty09 and 4 more: add images" in problem


def test_files_that_are_not_read_and_classes_without_a_test_are_noted(data: DataSpec, tmp_path: Path) -> None:
    for name in ("cat/a.gif", "cat/b.GIF", "ant/c.jfif", "ant/README", "loose.png"):
        (tmp_path / "train" / name).touch()
    (tmp_path / "val" / "ant").rename(tmp_path / "ant")
    assert imagefolder_problems(data) == []
    notes = "\n".join(imagefolder_look(data).notes)
    assert "by their endings (4): 2 .gif, 1 without an ending, 1 .jfif" in notes
    assert "images that lie in no class folder and are not read: 1" in notes
    assert "classes without a folder here, which are not tested (1): ant" in notes


def test_an_empty_validation_split_is_known_before_a_job_runs(data: DataSpec) -> None:
    (problem,) = imagefolder_problems(replace(data, val_fraction=0.05))
    assert "data.val_fraction is 0.05: of 6 training images, no image would be held out" in problem


def test_names_of_any_bytes_are_read_and_identified(data: DataSpec, tmp_path: Path) -> None:
    first = imagefolder_identity(data, by_content=False)
    image = tmp_path / "train" / "cat" / "0.png"
    image.rename(os.fsdecode(os.fsencode(image.parent) + b"/\xff.png"))
    assert imagefolder_identity(data, by_content=False) != first
    assert READERS["imagefolder"].read(data, 32).train.image(5).shape == (40, 50, 3)
