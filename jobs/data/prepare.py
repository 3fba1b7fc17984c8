"""A data set on this machine's disk: check the settings, write the source to two .beton files once, verify them on every use.

`jobs.data.loaders` reads the files.
"""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from functools import cache as once_a_process
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from jobs.cluster.claims import claimed
from jobs.data.augment import held_out
from jobs.data.beton import DataError, Encoded, encoded, read_index, sha256_file, write_beton, write_sha256
from jobs.data.sources import READERS, Part, content_key, fitted
from jobs.experiment.files import sha256_of, write_json
from jobs.experiment.limits import data_violations
from jobs.experiment.specs import DataSpec, image_size

__all__ = ["DataError", "Dataset", "check_data", "prepare"]

FORMAT_VERSION: Final = 1  # to be raised when the same settings would write other bytes
ALWAYS_HASHED_BYTES: Final = 256 << 20  # a larger file is hashed once; after that, its size and time of change identify it
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
                read_index(Path(path).expanduser())
        except DataError as error:
            problems.append(str(error))
    return problems


# preparing


def prepare(data: DataSpec, cache: Path) -> Dataset:
    """The data set on disk, written first if `cache` does not hold it. Of several processes that call this at once, one writes and the others wait.

    Raises DataError, which names the file and the remedy. FFCV's compiled code is kept in `cache` too, unless NUMBA_CACHE_DIR is set.
    """
    if problems := check_data(data):
        raise DataError("; ".join(problems))
    cache = cache.expanduser().absolute()
    os.environ.setdefault("NUMBA_CACHE_DIR", str(cache / "numba"))
    try:
        if data.source == "beton":
            train, test = (Path(path).expanduser().absolute() for path in (data.path or "", data.test_path or ""))
            return described(data, train, test, None, cache)
        folder = cache / f"{data.source}-{content_key(data, image_size(data), FORMAT_VERSION)}"
        with claimed(cache / f"{folder.name}.lock"):
            if not (folder / "source.json").exists():
                write_source(data, folder)
        classes = json.loads((folder / "source.json").read_text())["classes"]
        try:
            return described(data, folder / "train.beton", folder / "test.beton", classes, cache)
        except DataError as error:
            raise DataError(f"{error}; or remove {folder}, and the next run writes it again") from error
    except OSError as error:
        raise DataError(
            f"{error.filename or cache}: {error.strerror}: free space there, or set cluster.cache to a folder that can be written"
        ) from error


# writing


def write_source(data: DataSpec, folder: Path) -> None:
    """Fills `folder`, after removing what a killed writer left there. source.json comes last: where it exists, the rest is complete."""
    shutil.rmtree(folder, ignore_errors=True)
    img_size = image_size(data)
    content = READERS[data.source].read(data, img_size)
    try:
        for name, part in (("train", content.train), ("test", content.test)):
            write_part(data, img_size, part, folder / f"{name}.beton")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error
    write_json(folder / "source.json", {"source": data.source, "path": data.path, "classes": content.classes})


def write_part(data: DataSpec, img_size: int, part: Part, path: Path) -> None:
    """Writes training or test images, and their digest beside them. An image of the network's size is never compressed."""

    def encode(sample: int) -> Encoded:
        image = fitted(part.image(sample), img_size, data.max_resolution)
        return encoded(image, jpg=data.write_mode == "jpg" and image.shape[:2] != (img_size, img_size))

    write_beton(path, encode, part.labels)
    write_sha256(path)


# verifying


def described(data: DataSpec, train: Path, test: Path, classes: int | None, cache: Path) -> Dataset:
    """The content of both files, after checks of their structure and digests. `classes`: None to count them in the labels."""
    indices = [read_index(path) for path in (train, test)]
    digests = [verified_sha256(path, cache) for path in (train, test)]
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


def verified_sha256(path: Path, cache: Path) -> str:
    """The digest of `path`. DataError where the file beside it holds another."""
    status = path.stat()
    digest = remembered_sha256(path.resolve(), status.st_size, status.st_mtime_ns, cache)
    written = sha256_file(path)
    if written.exists() and written.read_text().split()[:1] != [digest]:
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
        known: dict[str, Any] = json.loads(memory.read_text()) if memory.exists() else {}
        if {key: known.get(key) for key in state} != state:
            known = {**state, "sha256": sha256_of(path)}
            write_json(memory, known)
    return str(known["sha256"])
