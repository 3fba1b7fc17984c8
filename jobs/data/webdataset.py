"""WebDataset: tar files in which the members of a sample lie side by side and share their name up to its first dot.

n01440764_18.jpg, n01440764_18.cls     the image, and its class as a number or a name
n01440764_18.json                      in place of .cls: {"label": 3}, or {"cls": 3}
Source: the format's description in webdataset's documentation ("The WebDataset Format"): a member's key is its path up to the first dot of its name.
"""

import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from jobs.data.beton import DataError
from jobs.data.content import Content, Part
from jobs.data.faults import listed
from jobs.data.file_sets import file_sets, files_identity
from jobs.data.images import decoded_bytes
from jobs.data.listing import IMAGE_SUFFIXES
from jobs.experiment.specs import DataSpec

READING: Final = 1  # to be raised when the same files would give other images
TAR: Final = (".tar",)  # compressed ones have no offsets to read from
IMAGES: Final = frozenset(suffix.lstrip(".") for suffix in IMAGE_SUFFIXES)
LABEL_KEYS: Final = ("label", "cls")  # of .json


@dataclass(frozen=True, kw_only=True)
class Sample:
    """An image of a tar file."""

    file: Path
    name: str  # of the member
    offset: int
    size: int
    label: str


# checking


def webdataset_problems(data: DataSpec) -> list[str]:
    """The errors in the names of the files, and in the first sample of each split."""
    try:
        files = file_sets(data, TAR)
        for file in (files.train[0], files.test[0]):
            if next(samples_of(file), None) is None:
                return [f"{file}: holds no images: its members must be called <key>.jpg (or .png ...) and <key>.cls or <key>.json"]
    except DataError as error:
        return [str(error)]
    return []


def webdataset_identity(data: DataSpec, by_content: bool) -> list[Any]:
    """A digest of each split's files."""
    files = file_sets(data, TAR)
    return ["reading", READING, files_identity(files.train, by_content), files_identity(files.test, by_content)]


# reading


def read_webdataset(data: DataSpec, img_size: int) -> Content:
    """The images, which are read when they are asked for. All headers of the tar files are read now."""
    files = file_sets(data, TAR)
    train, test = ([sample for file in paths for sample in samples_of(file)] for paths in (files.train, files.test))
    names = class_names(sample.label for sample in train)
    number = {name: position for position, name in enumerate(names)}
    if unknown := {sample.label for sample in test} - set(names):
        names_of_classes = f"({len(unknown)}): {listed(unknown)}"
        raise DataError(f"{files.test[0].parent}: classes that no training image has {names_of_classes}: give splits of one data set")
    if len({sample.label for sample in train}) < 2:
        where = f"{files.train[0].parent}: all its labels are {train[0].label}"
        raise DataError(f"{where}: a network that learns to tell classes apart needs two or more")
    return Content(classes=len(names), names=names, train=tar_part(train, number), test=tar_part(test, number))


def class_names(labels: Iterator[str]) -> tuple[str, ...]:
    """The classes in their order: numbers from 0 to the largest that is used, or names in their alphabetical order."""
    used = set(labels)
    if all(label.isdecimal() for label in used):
        return tuple(map(str, range(max(map(int, used)) + 1)))
    return tuple(sorted(used))


def tar_part(samples: Sequence[Sample], number: dict[str, int]) -> Part:
    """The samples of tar files, by the numbers of their classes."""

    def content(position: int) -> bytes:
        sample = samples[position]
        with sample.file.open("rb") as file:
            file.seek(sample.offset)
            return file.read(sample.size)

    def image(position: int) -> NDArray[np.uint8]:
        return decoded_bytes(content(position), name(position))

    def name(position: int) -> str:
        return f"{samples[position].file}: {samples[position].name}"

    return Part(labels=np.array([number[sample.label] for sample in samples]), image=image, name=name, content=content)


def samples_of(file: Path) -> Iterator[Sample]:
    """The samples of a tar file in its order. DataError where it is cut, or where a sample lacks its image or its class."""
    key, members = ("", ""), dict[str, tuple[tarfile.TarInfo, bytes]]()
    for member, tar in members_of(file):
        folder, _, base = member.name.rpartition("/")
        stem, _, ending = base.partition(".")
        if base.startswith(".") or folder.rpartition("/")[2].startswith("."):
            continue
        if (folder, stem) != key and members:
            yield sample_of(file, members)
            members = {}
        key = (folder, stem)
        content = tar.extractfile(member) if ending.lower() in ("cls", "json") else None
        members[ending.lower()] = (member, content.read() if content else b"")
    if members:
        yield sample_of(file, members)


def members_of(file: Path) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    """The regular files in a tar file."""
    try:
        with tarfile.open(file, "r:") as tar:
            for member in tar:
                if member.isfile():
                    if member.offset_data + member.size > file.stat().st_size:
                        raise tarfile.ReadError("unexpected end of data")
                    yield member, tar
        if not ended(file):
            raise tarfile.ReadError("unexpected end of data")
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{file}: not a whole tar file without compression ({error}): copy or download it again") from error


def ended(file: Path) -> bool:
    """True if a tar file has its end: blocks of zeros."""
    with file.open("rb") as tar:
        tar.seek(-tarfile.BLOCKSIZE, 2)
        return not any(tar.read())


def sample_of(file: Path, members: dict[str, tuple[tarfile.TarInfo, bytes]]) -> Sample:
    """The sample that members of one key make."""
    image = next((member for ending, (member, _) in members.items() if ending in IMAGES), None)
    label = label_of(members)
    if image is None or label is None:
        (first, _), *_ = members.values()
        lacks = "an image (.jpg, .png ...)" if image is None else "a class (.cls, or .json with 'label')"
        there = ", ".join(f".{ending}" for ending in members)
        raise DataError(f"{file}: the sample of {first.name} lacks {lacks}: its members are {there}: write the tar file again with both")
    return Sample(file=file, name=image.name, offset=image.offset_data, size=image.size, label=label)


def label_of(members: dict[str, tuple[tarfile.TarInfo, bytes]]) -> str | None:
    """The class that a sample's members tell; None if they tell none."""
    if "cls" in members:
        return members["cls"][1].decode("utf-8", "replace").strip() or None
    try:
        content = json.loads(members["json"][1])
    except (KeyError, ValueError):
        return None
    labels = [content[key] for key in LABEL_KEYS if key in content] if isinstance(content, dict) else []
    return str(labels[0]) if labels and isinstance(labels[0], int | str) else None
