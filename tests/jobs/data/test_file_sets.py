"""Patterns, splits by names, and the identity of shards."""

import os
from pathlib import Path

import pytest

from jobs.data.beton import DataError
from jobs.data.file_sets import LastOpened, expanded, file_sets, files_identity, split_of
from jobs.experiment.specs import DataSpec

TAR = (".tar",)


def touch(root: Path, *names: str) -> Path:
    """Files of one byte."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


# the names are those of the documentation of `datasets`, "Structure your repository", and of data sets on the hub
@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.csv", "train"),
        ("my_train_file_00.csv", "train"),
        ("data/train-00000-of-00294.parquet", "train"),
        ("default/train/0000.parquet", "train"),
        ("imagenet1k-train-0000.tar", "train"),
        ("training/0.tar", "train"),
        ("data/validation-00000-of-00014.parquet", "validation"),
        ("dev-1.parquet", "validation"),
        ("val/000.tar", "validation"),
        ("Valid/000.tar", "validation"),
        ("data/test_01.parquet", "test"),
        ("eval/0.arrow", "test"),
        ("trainer-0.tar", ""),
        ("contest.tar", ""),
        ("0000.tar", ""),
        ("train/test-0.tar", "test"),
    ],
)
def test_names_tell_the_split_by_whole_words_a_files_name_first(name: str, split: str) -> None:
    assert split_of(name) == split


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("a-{008..011}.tar", ["a-008.tar", "a-009.tar", "a-010.tar", "a-011.tar"]),
        ("{0..1}/{a,b}.tar", ["0/a.tar", "0/b.tar", "1/a.tar", "1/b.tar"]),
        ("{9..10}.tar", ["9.tar", "10.tar"]),
        ("x?.tar", ["x1.tar", "x2.tar"]),
        ("x*", ["x1.tar", "x2.tar"]),
    ],
)
def test_patterns_are_expanded_as_a_shell_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, paths: list[str]) -> None:
    monkeypatch.chdir(touch(tmp_path, "x1.tar", "x2.tar", *(paths)))
    assert expanded(pattern) == paths


def test_a_shard_of_a_pattern_that_is_not_there_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "train-0.tar", "train-2.tar", "val-0.tar")
    data = DataSpec(source="webdataset", path=str(tmp_path / "train-{0..2}.tar"), test_path=str(tmp_path / "val-0.tar"))
    with pytest.raises(DataError, match="train-1.tar: no such file or folder"):
        file_sets(data, TAR)


def test_in_a_folder_names_tell_the_files_of_both_sets_and_validation_goes_before_test(tmp_path: Path) -> None:
    touch(tmp_path, "train-1.tar", "train-0.tar", "test-0.tar", "val-0.tar", ".cache/val-1.tar", "README.md")
    files = file_sets(DataSpec(source="webdataset", path=str(tmp_path)), TAR)
    assert [path.name for path in files.train] == ["train-0.tar", "train-1.tar"] and [path.name for path in files.test] == ["val-0.tar"]
    files = file_sets(DataSpec(source="webdataset", path=str(tmp_path), test_path=str(tmp_path / "test-*.tar")), TAR)
    assert [path.name for path in files.test] == ["test-0.tar"] and len(files.train) == 2


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((), "holds no .tar files"),
        (("a.tar", "b.tar"), r"no file or folder is called train \(a.tar, b.tar\): give the files with data.path and data.test_path"),
        (("train.tar",), r"no file or folder is called validation \(train.tar\)"),
    ],
)
def test_a_folder_that_tells_no_split_is_refused_with_the_remedy(tmp_path: Path, names: tuple[str, ...], said: str) -> None:
    with pytest.raises(DataError, match=said):
        file_sets(DataSpec(source="webdataset", path=str(touch(tmp_path, *names))), TAR)


def test_a_file_is_not_for_training_and_for_tests(tmp_path: Path) -> None:
    touch(tmp_path, "a.tar")
    with pytest.raises(DataError, match="files that are for training and for tests: a.tar"):
        file_sets(DataSpec(source="webdataset", path=str(tmp_path / "a.tar"), test_path=str(tmp_path)), TAR)


def test_the_identity_is_that_of_names_sizes_and_times_or_of_the_content(tmp_path: Path) -> None:
    files = [touch(tmp_path, "a.tar") / "a.tar"]
    first = [files_identity(files, by_content) for by_content in (False, True)]
    os.utime(files[0], ns=(0, 5))
    second = [files_identity(files, by_content) for by_content in (False, True)]
    assert second[0] != first[0] and second[1] == first[1]
    files[0].write_bytes(b"y")
    assert files_identity(files, True) != first[1]


def test_what_was_opened_last_is_kept_for_its_key_alone() -> None:
    calls: list[int] = []
    opened = LastOpened(lambda number: calls.append(number) or number)
    assert [opened(1), opened(1), opened(2), opened(1)] == [1, 1, 2, 1] and calls == [1, 2, 1]
