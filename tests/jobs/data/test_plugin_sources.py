"""Whatever goes wrong in a plug-in's source is told with its line, and what it gives is checked."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.data.beton import DataError
from jobs.data.prepare import check_data, data_folder, look_at_data, prepare
from jobs.data.sources import READERS, content_key, reader_of
from jobs.experiment.specs import DataSpec
from models.plugins.loading import load_file
from models.plugins.tables import forget_rows
from tests.support.plugins import SOURCE, own_tables, written  # noqa: F401

READ = "    return Content(classes=2, train=part(80, data.options.light), test=part(20, data.options.light))\n"


def source(folder: Path, *changes: tuple[str, str]) -> DataSpec:
    text = SOURCE
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    forget_rows()
    load_file(written(folder, text))
    return DataSpec(source="grey", loader="torch")


def test_images_of_a_plug_in_are_written_and_read_as_ours_are(tmp_path: Path) -> None:
    data = source(tmp_path)
    assert check_data(data) == [] and look_at_data(data).problems == []
    dataset = prepare(data, tmp_path / "cache")
    assert (dataset.classes, dataset.train_samples + dataset.val_samples, dataset.test_samples) == (2, 80, 20)


def test_the_written_files_are_those_of_this_content_of_the_plug_in_and_of_its_options(tmp_path: Path) -> None:
    def keys() -> Iterator[str]:
        yield content_key(source(tmp_path), 8, 1)
        yield content_key(DataSpec(source="grey", options={"light": 7}), 8, 1)
        yield content_key(source(tmp_path, ("% 50", "% 40")), 8, 1)

    assert len(set(keys())) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("problems=lambda data: []", "problems=lambda data: data.nothing"), "data.source: grey: AttributeError: 'DataSpec' object has no attribute"),
        (("problems=lambda data: []", "problems=lambda data: 'no'"), "data.source: grey: TypeError: problems must give a list of texts, got 'no'"),
        (("by_content: 1,", "by_content: {1},"), "data.source: grey: TypeError: identity must give plain values, as JSON has them"),
        (("by_content: 1,", "by_content: 1 / 0,"), "data.source: grey: ZeroDivisionError: division by zero (FOLDER/plugin.py:22)"),
    ],
)
def test_a_fault_in_a_check_is_a_problem_of_the_launch(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    (problem,) = check_data(source(tmp_path, change))
    assert problem.startswith(message.replace("FOLDER", str(tmp_path)))
    if "identity" in message or "ZeroDivision" in message:
        with pytest.raises(DataError):
            data_folder(DataSpec(source="grey"), tmp_path, False)


@pytest.mark.parametrize(
    ("after", "message"),
    [
        (
            "    return np.zeros(3)[data.nowhere]\n",
            "data.source: grey: AttributeError: 'DataSpec' object has no attribute 'nowhere' (FOLDER/plugin.py:20)",
        ),
        ("    return [1]\n", "data.source: grey: read must give a jobs.data.content.Content, got a value of type list"),
        (
            "    return Content(classes=1, train=part(80, 1), test=part(20, 1))\n",
            "data.source: grey: classes must be a whole number, 2 or more, got 1",
        ),
        (
            "    return Content(classes=2, train=part(80, 1), test=3)\n",
            "data.source: grey: test must be a jobs.data.content.Part, got a value of type int",
        ),
        (
            "    return Content(classes=2, train=Part(labels=np.arange(4), image=part(4, 1).image, name=str), test=part(20, 1))\n",
            "data.source: grey: train: labels must be from 0 to 1, for 2 classes, got 0 to 3",
        ),
        (
            "    return Content(classes=2, train=Part(labels=np.zeros(4), image=part(4, 1).image, name=str), test=part(20, 1))\n",
            "data.source: grey: train: labels must be an array of whole numbers, one for each image, got float64 of shape (4,)",
        ),
    ],
)
def test_what_is_no_content_is_refused(tmp_path: Path, after: str, message: str) -> None:
    data = source(tmp_path, (READ, after))
    with pytest.raises(DataError) as refused:
        prepare(data, tmp_path / "cache")
    assert str(refused.value) == message.replace("FOLDER", str(tmp_path))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("np.zeros((8, 8), np.uint8)", "must be an array (H, W, 3) of uint8, got uint8 of shape (8, 8)"),
        ("np.zeros((8, 8, 3))", "must be an array (H, W, 3) of uint8, got float64 of shape (8, 8, 3)"),
        ("None", "must be an array (H, W, 3) of uint8, got a value of type NoneType"),
        ("labels[sample + 1000]", "IndexError: index 10"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path: Path, image: str, message: str) -> None:
    whole = "np.full((8, 8, 3), light * labels[sample] + sample % 50, np.uint8)"
    data = source(tmp_path, (whole, image))
    with pytest.raises(DataError) as refused:
        prepare(data, tmp_path / "cache")
    assert message in str(refused.value)


def test_our_own_readers_are_as_they_are() -> None:
    assert all(reader_of(name) is reader for name, reader in READERS.items())
