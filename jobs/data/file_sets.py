"""Sources that are kept as shards: which files hold the training images, which the test images, and their identity.

A path is a folder, a file, or a pattern: `{000..127}` and `{a,b}` are expanded as a shell does, `*` and `?` match names. In a folder, names tell the
split, by the words that Hugging Face's `datasets` looks for (its documentation, "File names and splits"): first in a file's name, then its folders'.
"""

import glob
import hashlib
import os
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from jobs.data.beton import DataError
from jobs.data.faults import listed
from jobs.experiment.files import sha256_of
from jobs.experiment.specs import DataSpec

WORDS: Final = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
TESTED: Final = ("validation", "test")  # the test set is the first of these splits that is there: ImageNet's own test images have no public labels
BRACES: Final = re.compile(r"\{([^{}]*)\}")
RANGE: Final = re.compile(r"(\d+)\.\.(\d+)")

Opened = TypeVar("Opened")


@dataclass(frozen=True, kw_only=True)
class FileSets:
    """The files of a source, in the order of their names."""

    train: tuple[Path, ...]
    test: tuple[Path, ...]
    splits: tuple[str, ...] = ()  # that the names in a folder tell

    def all(self) -> tuple[Path, ...]:
        """Training files, then test files."""
        return self.train + self.test


def file_sets(data: DataSpec, endings: Sequence[str]) -> FileSets:
    """The files of `data` whose names have one of `endings`. Raises DataError where there are none for training or for tests."""
    if data.path is None:
        raise DataError(f"data.path is not set: give a folder of {' or '.join(endings)} files, or a pattern such as train-{{000..127}}{endings[0]}")
    by_split = files_by_split(data.path, endings)
    whole = [path for paths in by_split.values() for path in paths]
    if not whole:
        raise DataError(f"{data.path}: holds no {' or '.join(endings)} files: give a folder or a pattern that does")
    train = by_split.get("train", () if data.test_path is None else whole)
    tested = next((split for split in TESTED if split in by_split), None)
    test = by_split.get(tested or "", ())
    if data.test_path is not None:
        below = files_by_split(data.test_path, endings)
        test = [path for paths in below.values() for path in paths]
        if not test:
            raise DataError(f"{data.test_path}: holds no {' or '.join(endings)} files: give a folder or a pattern that does")
    for name, paths in (("train", train), ("validation", test)):
        if not paths:
            said = listed(path.name for path in whole)
            raise DataError(f"{data.path}: no file or folder is called {name} ({said}): give the files with data.path and data.test_path")
    if both := set(train) & set(test):
        shared = listed(path.name for path in both)
        raise DataError(f"{data.path}: files that are for training and for tests: {shared}: give other files in data.test_path")
    return FileSets(train=tuple(sorted(train)), test=tuple(sorted(test)), splits=tuple(sorted(by_split)))


def files_by_split(path: str, endings: Sequence[str]) -> dict[str, list[Path]]:
    """The files of a folder, a file or a pattern by the split that their names tell; '' where they tell none."""
    by_split: dict[str, list[Path]] = {}
    for name in expanded(os.path.expanduser(path)):
        root = Path(name)
        files = [root] if root.is_file() else sorted(file for ending in endings for file in root.rglob(f"*{ending}") if visible(file, root))
        for file in files:
            by_split.setdefault(split_of(str(file.relative_to(root)) if root.is_dir() else file.name), []).append(file)
    return by_split


def visible(file: Path, root: Path) -> bool:
    """True unless a name below `root` begins with a dot."""
    return not any(part.startswith(".") for part in file.relative_to(root).parts)


def split_of(name: str) -> str:
    """The split that the path of a file tells: 'train', 'validation', 'test', or ''."""
    for part in reversed(Path(name).parts):
        words = re.split(r"[-._ 0-9]+", part.lower())
        for split, known in WORDS.items():
            if set(known) & set(words):
                return split
    return ""


def expanded(pattern: str) -> list[str]:
    """The paths that a pattern stands for. Those of braces need not exist; DataError for `*` and `?` that match nothing."""
    braces = BRACES.search(pattern)
    if braces:
        return [path for item in items(braces[1]) for path in expanded(pattern[: braces.start()] + item + pattern[braces.end() :])]
    if not set("*?[") & set(pattern) or os.path.exists(pattern):
        if not os.path.exists(pattern):
            raise DataError(f"{pattern}: no such file or folder: mend data.path or data.test_path")
        return [pattern]
    return sorted(glob.glob(pattern))


def items(braces: str) -> list[str]:
    """What braces hold: 'a,b' is a and b; '008..011' is 008, 009, 010 and 011."""
    numbers = RANGE.fullmatch(braces)
    if numbers is None:
        return braces.split(",")
    first, last = int(numbers[1]), int(numbers[2])
    return [str(number).zfill(len(numbers[1])) for number in range(first, last + 1)]


def files_identity(files: Iterable[Path], by_content: bool) -> str:
    """A digest of the files: of their names with sizes and times of change, or with their content."""
    digest = hashlib.sha256()
    for file in files:
        status = file.stat()
        state = sha256_of(file) if by_content else f"{status.st_size} {status.st_mtime_ns}"
        digest.update(f"{file.name}\0{state}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


class LastOpened(Generic[Opened]):
    """What each thread of each process opened last: samples are read one after the other, and a forked process cannot share a file's position."""

    def __init__(self, opener: Callable[..., Opened]) -> None:
        self._opener, self._local = opener, threading.local()

    def __call__(self, *key: Any) -> Opened:
        """`opener(*key)`, kept until another key is asked for."""
        whose = (os.getpid(), key)
        if getattr(self._local, "key", None) != whose:
            self._local.value, self._local.key = self._opener(*key), whose
        value: Opened = self._local.value
        return value
