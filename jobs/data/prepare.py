"""A data set on this machine's disk: check the settings, write the source to two .beton files once, verify them on every use.

`jobs.data.loaders` reads the files.
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache as once_a_process
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np

from jobs.cluster.claims import claimed
from jobs.data.augment import held_out
from jobs.data.beton import PAGE_BYTES, RAW, DataError, Encoded, encoded, read_index, sha256_file, write_beton, write_sha256
from jobs.data.content import Content, Part
from jobs.data.faults import Faults, UnusableImage
from jobs.data.folders import split_problems
from jobs.data.sources import READERS, content_key, fitted, fitted_size
from jobs.experiment.files import sha256_of, write_json
from jobs.experiment.limits import data_violations
from jobs.experiment.specs import DataSpec, image_size

__all__ = ["DataError", "Dataset", "check_data", "data_notes", "prepare"]

FORMAT_VERSION: Final = 1  # to be raised when the same settings would write other bytes
ALWAYS_HASHED_BYTES: Final = 256 << 20  # a larger file is hashed once; after that, its size and time of change identify it
LONGEST_RAW: Final = 65535  # pixels of one side, by FFCV's format
LONGEST_JPG: Final = 65500  # by libjpeg
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


# checking


def check_data(data: DataSpec) -> list[str]:
    """Every error in `data` that shows quickly on this machine, as messages that name a key or a file, and the remedy. Reads no image."""
    problems = value_problems(data)
    if data.loader == "ffcv" and find_spec("ffcv") is None:
        problems.append(f"data.loader: ffcv is not installed: {INSTALL_FFCV}")
    return problems + (beton_problems(data) if data.source == "beton" else READERS[data.source].problems(data))


def data_notes(data: DataSpec) -> list[str]:
    """What a user should know of data without an error, such as files that are not read. Reads no image."""
    return [] if data.source == "beton" else READERS[data.source].notes(data)


def value_problems(data: DataSpec) -> list[str]:
    """The rules of `jobs.experiment.limits` that `data` breaks. A path that is not set is left to the source, which says what to set it to."""
    return [
        f"data.{broken.field} is {broken.value}: it {broken.rule}" if broken.value is not None else f"data.{broken.field}: {broken.rule}"
        for broken in data_violations(data)
        if broken.field not in ("path", "test_path") or getattr(data, broken.field) is not None
    ]


def beton_problems(data: DataSpec) -> list[str]:
    """The errors in the paths of ready files, and in the files."""
    problems = [
        f"data.{key} is not set: give the .beton file of the {part} images"
        for key, part in (("path", "training"), ("test_path", "test"))
        if getattr(data, key) is None
    ]
    for path in (data.path, data.test_path):
        try:
            if path is not None:
                labels = read_index(Path(path).expanduser())["label"]
                problems += split_problems(data, labels) if path == data.path else []
        except DataError as error:
            problems.append(str(error))
    return problems


# preparing


def prepare(data: DataSpec, cache: Path, *, by_content: bool = False) -> Dataset:
    """The data set on disk, written first if `cache` does not hold it. Of several processes that call this at once, one writes and the others wait.

    by_content: read every file to see whether it has changed; otherwise it has not while its name, size and time of change stay.
    Raises DataError, which names the file and the remedy. FFCV's compiled code is kept in `cache` too, unless NUMBA_CACHE_DIR is set.
    """
    if problems := check_data(data):
        raise DataError("; ".join(problems))
    cache = cache.expanduser().absolute()
    os.environ.setdefault("NUMBA_CACHE_DIR", str(cache / "numba"))
    try:
        if data.source == "beton":
            train, test = (Path(path).expanduser().absolute() for path in (data.path or "", data.test_path or ""))
            return described(data, train, test, None, cache, by_content)
        with readable_source():
            folder = cache / f"{data.source}-{content_key(data, image_size(data), FORMAT_VERSION, by_content)}"
        with claimed(cache / f"{folder.name}.lock"):
            if not (folder / "source.json").exists():
                write_source(data, folder)
        classes = json.loads((folder / "source.json").read_bytes())["classes"]
        try:
            return described(data, folder / "train.beton", folder / "test.beton", classes, cache, by_content)
        except DataError as error:
            raise DataError(f"{error}; or remove {folder}, and the next run writes it again") from error
    except OSError as error:
        raise DataError(
            f"{error.filename or cache}: {error.strerror}: free space there, or set cluster.cache to a folder that can be written"
        ) from error


@contextmanager
def readable_source() -> Iterator[None]:
    """Turns an OSError from a file of the source into a DataError that names it."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{error.filename or 'the data'}: {error.strerror or error}: see that this machine can read it, and launch again") from error


# writing


def write_source(data: DataSpec, folder: Path) -> None:
    """Fills `folder`, after removing what a killed writer left there. source.json comes last: where it exists, the rest is complete.

    All images are tried before a DataError names those that cannot be used.
    """
    shutil.rmtree(folder, ignore_errors=True)
    with readable_source():
        content = READERS[data.source].read(data, image_size(data))
    try:
        write_parts(data, content, folder)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error
    except DataError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    write_json(folder / "source.json", {"source": data.source, "path": data.path, "classes": content.classes})


def write_parts(data: DataSpec, content: Content, folder: Path) -> None:
    """Writes train.beton and test.beton. DataError that names all images that cannot be used."""
    faults = Faults()
    for name, part in (("train", content.train), ("test", content.test)):
        write_part(data, part, folder / f"{name}.beton", faults)
    faults.raise_if_any()


def write_part(data: DataSpec, part: Part, path: Path, faults: Faults) -> None:
    """Writes training or test images, and their digest beside them. A black pixel stands for an image that is added to `faults`."""

    def encode(sample: int) -> Encoded:
        try:
            return encoded_sample(data, part, sample)
        except UnusableImage as error:
            faults.add(error)
            return Encoded(mode=RAW, height=1, width=1, content=np.zeros(3, np.uint8))

    write_beton(path, encode, part.labels)
    write_sha256(path)


def encoded_sample(data: DataSpec, part: Part, sample: int) -> Encoded:
    """An image as the file holds it; that of the network's size is never compressed. UnusableImage where the format cannot hold it."""
    img_size = image_size(data)
    image = part.image(sample)
    rows, columns = image.shape[:2]
    height, width = fitted_size(rows, columns, img_size, data.max_resolution)
    jpg = data.write_mode == "jpg" and (height, width) != (img_size, img_size)
    if fits(height, width, jpg):
        stored = encoded(fitted(image, img_size, data.max_resolution), jpg=jpg)
        if stored.content.size <= PAGE_BYTES:
            return stored
    raise UnusableImage(
        part.name(sample),
        fault=f"too large for a .beton file at {img_size} pixels",
        detail=f"{columns} x {rows}, stored as {width} x {height}",
        remedy=smaller(rows, columns, img_size, jpg),
    )


def fits(height: int, width: int, jpg: bool) -> bool:
    """True where the format holds an image of this size; a JPEG's bytes are counted once they are there."""
    return max(height, width) <= LONGEST_JPG if jpg else max(height, width) <= LONGEST_RAW and 3 * height * width <= PAGE_BYTES


def smaller(height: int, width: int, img_size: int, jpg: bool) -> str:
    """The advice for an image that the format cannot hold."""
    square = math.isqrt(PAGE_BYTES // 3)  # the largest raw image
    if img_size <= square and fits(*fitted_size(height, width, img_size, square), jpg=False):
        other = "" if jpg else ", or data.write_mode: jpg"
        return f"set data.max_resolution to at most {square}{other}"
    if not jpg and fits(*fitted_size(height, width, img_size, None), jpg=True):
        return "set data.write_mode: jpg"
    ratio = min(PAGE_BYTES // (3 * img_size**2), LONGEST_RAW // img_size)
    return f"crop or remove {{it}}: its longer side can be {ratio} times the shorter" if ratio else "lower data.img_size"


# verifying


def described(data: DataSpec, train: Path, test: Path, classes: int | None, cache: Path, by_content: bool) -> Dataset:
    """The content of both files, after checks of their structure and digests. `classes`: None to count them in the labels."""
    indices = [read_index(path) for path in (train, test)]
    digests = [verified_sha256(path, cache, by_content) for path in (train, test)]
    val = int(held_out(indices[0]["label"], data.val_fraction, data.split_seed).sum())
    return Dataset(
        classes=classes or int(max(index["label"].max() for index in indices)) + 1,
        img_size=image_size(data),
        train=train,
        test=test,
        train_samples=len(indices[0]) - val,
        val_samples=val,
        test_samples=len(indices[1]),
        sha256=hashlib.sha256("".join(digests).encode()).hexdigest(),
    )


def verified_sha256(path: Path, cache: Path, by_content: bool) -> str:
    """The digest of `path`. DataError where the file beside it holds another."""
    status = path.stat()
    digest = sha256_of(path) if by_content else remembered_sha256(path.resolve(), status.st_size, status.st_mtime_ns, cache)
    written = sha256_file(path)
    if written.exists() and written.read_text(encoding="utf-8", errors="replace").split()[:1] != [digest]:
        raise DataError(
            f"{path}: its content is not what was written (its sha256 is {digest}, {written.name} holds another): "
            f"remove {path.parent} to have it written again, or copy the file again"
        )
    return digest


@once_a_process
def remembered_sha256(path: Path, size: int, mtime_ns: int, cache: Path) -> str:
    """The digest of a file. `cache` remembers that of a large file for as long as its size and time of change stay."""
    if size <= ALWAYS_HASHED_BYTES:
        return sha256_of(path)
    state = {"path": str(path), "size": size, "mtime_ns": mtime_ns}
    memory = cache / "hashed" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:16]}.json"
    with claimed(memory.with_suffix(".lock")):
        known = remembered(memory)
        if {key: known.get(key) for key in state} != state:
            known = {**state, "sha256": sha256_of(path)}
            write_json(memory, known)
    return str(known["sha256"])


def remembered(memory: Path) -> dict[str, Any]:
    """The content of a memory of digests; empty where there is none, or where it cannot be read."""
    try:
        known = json.loads(memory.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return known if isinstance(known, dict) and "sha256" in known else {}
