"""A test folder without class folders."""

import re
from pathlib import Path

import pytest

from jobs.data.folders import imagefolder_identity, imagefolder_look, imagefolder_problems, read_imagefolder
from jobs.experiment.limits import data_violations
from jobs.experiment.specs import DataSpec
from tests.support.images import write_folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Class folders for training; for tests the same images, all in one folder, as ImageNet's val is."""
    write_folder(tmp_path / "train")
    write_folder(tmp_path / "sorted")
    (tmp_path / "val").mkdir()
    for number, path in enumerate(sorted((tmp_path / "sorted").rglob("*.png"), key=lambda path: (path.name, path.parent.name))):
        path.rename(tmp_path / "val" / f"ILSVRC2012_val_{number:08}.png")
    return tmp_path


def spec(root: Path, **more: str) -> DataSpec:
    return DataSpec(source="imagefolder", path=str(root), **more)  # type: ignore[arg-type]


def test_a_flat_val_folder_is_told_with_what_sorts_it(root: Path) -> None:
    (problem,) = imagefolder_problems(spec(root))
    assert "val: 6 images lie in it and no class folders, as in ImageNet's val" in problem
    assert "set data.test_labels to a file" in problem and "valprep.sh" in problem


@pytest.mark.parametrize(
    "line",
    ["ILSVRC2012_val_{:08},{} 85 1 499 272 {} 1 2 3 4", "ILSVRC2012_val_{:08}.png {}", "val/ILSVRC2012_val_{:08}.JPEG\t{}"],
    ids=["Kaggle's LOC_val_solution.csv", "names", "paths"],
)
def test_a_file_of_classes_takes_the_place_of_class_folders(root: Path, line: str) -> None:
    lines = [line.format(number, ("ant", "cat")[number % 2], "cat") for number in range(6)]
    (root / "labels.csv").write_text("\n".join(["ImageId,PredictionString", *reversed(lines), ""]))
    data = spec(root, test_labels=str(root / "labels.csv"))
    look = imagefolder_look(data)
    assert look.problems == [] and look.notes == []
    content = read_imagefolder(data, 32)
    assert content.names == ("ant", "cat") and content.test.labels.tolist() == [0, 0, 0, 1, 1, 1]
    for sample in range(6):
        assert (content.test.image(sample) == content.train.image(sample)).all()
    before = imagefolder_identity(data, by_content=True)
    (root / "labels.csv").write_text((root / "labels.csv").read_text() + "\n")
    assert imagefolder_identity(data, by_content=True) != before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ILSVRC2012_val_00000000 ant", "tells no class of the training images for 5 images of .*val: ILSVRC2012_val_00000001.png, "),
        ("ILSVRC2012_val_00000000 dog", "for 6 images"),
        ("ILSVRC2012_val_00000000", "line 1: ILSVRC2012_val_00000000 has no class"),
        (None, "No such file"),
    ],
)
def test_a_file_that_does_not_tell_all_classes_is_refused_by_name(root: Path, text: str | None, said: str) -> None:
    if text is not None:
        (root / "labels.csv").write_text(text)
    (problem,) = imagefolder_problems(spec(root, test_labels=str(root / "labels.csv")))
    assert re.search(said, problem) and "labels.csv" in problem


def test_no_other_source_takes_such_a_file() -> None:
    (broken,) = data_violations(DataSpec(source="digits", test_labels="x"))
    assert str(broken) == "source digits takes no test_labels"
