"""A data set on this machine's disk: check the settings, write the source to two .beton files once, verify them on every use.

`jobs.data.loaders` reads the files.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache as once_a_process
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from jobs.cluster.claims import claimed
from jobs.cluster.slurm import this_job
from jobs.data.augment import held_out
from jobs.data.beton import DataError, read_index, sha256_file
from jobs.data.content import Look
from jobs.data.faults import NAMED
from jobs.data.folders import split_problems
from jobs.data.sources import content_key, reader_of
from jobs.data.writing import POLL_S, Progress, ignore, is_written, readable_source, write_source
from jobs.experiment.containers import real_path
from jobs.experiment.digests import ALWAYS_HASHED_BYTES, memory_file, remember_sha256, remembered_sha256
from jobs.experiment.files import sha256_of
from jobs.experiment.limits import data_violations
from jobs.experiment.specs import DataSpec, image_size

__all__ = ["DataError", "Dataset", "check_data", "data_folder", "images_for_training", "look_at_data", "prepare", "ready"]

FORMAT_VERSION: Final = 1  # to be raised when the same settings would write other bytes
UNSEEN_S: Final = 60.0  # for which a network's file system may hide what another node has written
INSTALL_FFCV: Final = "run slurm/install.sh, which builds it, or ask for data.loader: torch by name"


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set that is ready to load from this machine's disk."""

    classes: int
    img_size: int
    train: Path
    test: Path
    train_samples: int
    val_samples: int
    test_samples: int
    sha256: str  # of both files' content
    names: tuple[str, ...] | None = None  # of the classes, by their numbers; None: they have none


# checking


def check_data(data: DataSpec) -> list[str]:
    """Every error in `data` that shows quickly on this machine, as messages that name a key or a file, and the remedy. Reads no image."""
    return value_problems(data) + (look_at_beton(data).problems if data.source == "beton" else reader_of(data.source).problems(data))


def look_at_data(data: DataSpec) -> Look:
    """Every error that a launch can know, with notes and labels. It asks for the size of every file and reads some headers, but decodes no image."""
    if data.source == "beton":
        look = look_at_beton(data)
    else:
        reader = reader_of(data.source)
        look = reader.look(data) if reader.look else Look(problems=reader.problems(data))
    return replace(look, problems=[*value_problems(data), *look.problems])


def images_for_training(data: DataSpec, labels: NDArray[np.integer]) -> int:
    """How many of the images with these labels are left after the validation split."""
    return len(labels) - int(held_out(labels, data.val_fraction, data.split_seed).sum())


def value_problems(data: DataSpec) -> list[str]:
    """The rules of `jobs.experiment.limits` that `data` breaks, and a loader that is not installed. A path that is not set is left to the source,
    which says what to set it to."""
    problems = [
        f"data.{broken.field} is {broken.value}: it {broken.rule}" if broken.value is not None else f"data.{broken.field}: {broken.rule}"
        for broken in data_violations(data)
        if broken.field not in ("path", "test_path") or getattr(data, broken.field) is not None
    ]
    if data.loader == "ffcv" and find_spec("ffcv") is None:
        problems.append(f"data.loader: ffcv is not installed: {INSTALL_FFCV}")
    return problems


def look_at_beton(data: DataSpec) -> Look:
    """The errors in the paths of ready files and in the files, and the labels of the training file."""
    problems = [
        f"data.{key} is not set: give the .beton file of the {part} images"
        for key, part in (("path", "training"), ("test_path", "test"))
        if getattr(data, key) is None
    ]
    labels = {}
    for key in ("path", "test_path"):
        try:
            if (path := getattr(data, key)) is not None:
                labels[key] = read_index(Path(path).expanduser())["label"]
        except DataError as error:
            problems.append(str(error))
    train = labels.get("path")
    if train is not None:
        problems += split_problems(data, train)
        problems += label_problems(data, train, labels.get("test_path", train))
    return Look(problems=problems, labels=train)


def label_problems(data: DataSpec, train: NDArray[np.integer], test: NDArray[np.integer]) -> list[str]:
    """Labels that make no classification, and test labels that no training image has."""
    problems = []
    if len(np.unique(train)) < 2:
        problems.append(f"{data.path}: all its labels are {train[0]}: a network that learns to tell classes apart needs two or more")
    if (classes := int(train.max()) + 1) > len(train):
        fault = f"its labels go up to {classes - 1}, which stands for {classes} classes, and it has {len(train)} images"
        problems.append(f"{data.path}: {fault}: number the classes from 0, without gaps")
    if unknown := np.setdiff1d(test, train).tolist():
        more = f" and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
        names = ", ".join(map(str, unknown[:NAMED])) + more
        problems.append(
            f"{data.test_path}: test labels that no image of {data.path} has ({len(unknown)}): {names}: write both files with the same labels"
        )
    return problems


# preparing


def prepare(data: DataSpec, cache: Path, *, by_content: bool = False, workers: int = 0, report: Callable[[Progress], None] = ignore) -> Dataset:
    """The data set on disk, written first if `cache` does not hold it. Processes that call this at once, on any machine, share the writing.

    by_content: read every file to see whether it has changed; otherwise it has not while its name, size and time of change stay.
    workers: the processes that write; 0: the threads of this one. report: is told from time to time how far the writing is.
    Raises DataError, which names the file and the remedy. Numba's compiled code is kept in `cache` too, unless NUMBA_CACHE_DIR is set.
    """
    return opened(data, cache, by_content, lambda folder: write_source(data, folder, workers=workers, report=report))


def ready(data: DataSpec, cache: Path, *, by_content: bool = False) -> Dataset:
    """The data set on disk. Raises DataError if it is not written yet: jobs that train write no data, since their GPUs would wait for it."""

    def refuse(folder: Path) -> None:
        until = time.monotonic() + (UNSEEN_S if this_job() else 0.0)
        while not is_written(folder):
            if time.monotonic() >= until:
                remedy = "run python -m harness.prepare with this grid, then launch again"
                raise DataError(f"the data is not ready: {folder} has not been written to the end: {remedy}")
            time.sleep(POLL_S)

    return opened(data, cache, by_content, refuse)


def data_folder(data: DataSpec, cache: Path, by_content: bool) -> Path | None:
    """The folder of the written files of a data set; None for a source whose files are used where they are."""
    if data.source == "beton":
        return None
    with readable_source():
        return cache.expanduser().absolute() / f"{data.source}-{content_key(data, image_size(data), FORMAT_VERSION, by_content)}"


def opened(data: DataSpec, cache: Path, by_content: bool, write: Callable[[Path], None]) -> Dataset:
    """The data set on disk. `write` is called with its folder if that is not written yet."""
    if problems := check_data(data):
        raise DataError("; ".join(problems))
    cache = cache.expanduser().absolute()
    os.environ.setdefault("NUMBA_CACHE_DIR", str(cache / "numba"))
    try:
        folder = data_folder(data, cache, by_content)
        if folder is None:
            train, test = (Path(path).expanduser().absolute() for path in (data.path or "", data.test_path or ""))
            return described(data, train, test, None, cache, by_content)
        if not is_written(folder):
            write(folder)
        source = json.loads((folder / "source.json").read_bytes())
        try:
            dataset = described(data, folder / "train.beton", folder / "test.beton", source["classes"], cache, by_content)
            return replace(dataset, names=tuple(source["names"]) if source.get("names") else None)
        except DataError as error:
            raise DataError(f"{error}; or remove {folder}, and write it again with python -m harness.prepare") from error
    except OSError as error:
        raise DataError(
            f"{error.filename or cache}: {error.strerror}: free space there, or set cluster.cache to a folder that can be written"
        ) from error


# verifying


def described(data: DataSpec, train: Path, test: Path, classes: int | None, cache: Path, by_content: bool) -> Dataset:
    """The content of both files, after checks of their structure and digests. `classes`: None to count them in the labels."""
    indices = [read_index(path) for path in (train, test)]
    digests = [verified_sha256(path, cache, by_content) for path in (train, test)]
    train_samples = images_for_training(data, indices[0]["label"])
    return Dataset(
        classes=classes or int(max(index["label"].max() for index in indices)) + 1,
        img_size=image_size(data),
        train=train,
        test=test,
        train_samples=train_samples,
        val_samples=len(indices[0]) - train_samples,
        test_samples=len(indices[1]),
        sha256=hashlib.sha256("".join(digests).encode()).hexdigest(),
    )


def verified_sha256(path: Path, cache: Path, by_content: bool) -> str:
    """The digest of `path`. DataError where the file beside it holds another."""
    status = path.stat()
    digest = sha256_of(path) if by_content else sha256_once(Path(real_path(path)), status.st_size, status.st_mtime_ns, cache)
    written = sha256_file(path)
    if written.exists() and written.read_text(encoding="utf-8", errors="replace").split()[:1] != [digest]:
        raise DataError(
            f"{path}: its content is not what was written (its sha256 is {digest}, {written.name} holds another): "
            f"remove {path.parent} to have it written again, or copy the file again"
        )
    return digest


@once_a_process
def sha256_once(path: Path, size: int, mtime_ns: int, cache: Path) -> str:
    """The digest of a file. `cache` remembers that of a large file for as long as its size and time of change stay."""
    if size <= ALWAYS_HASHED_BYTES:
        return sha256_of(path)
    with claimed(memory_file(path, cache).with_suffix(".lock")):
        if (known := remembered_sha256(path, size, mtime_ns, cache)) is None:
            known = sha256_of(path)
            remember_sha256(path, size, mtime_ns, cache, known)
    return known
