"""Folders of images: path/train/<class>/... and path/val/<class>/..., with images at any depth below a class.

The test folder may be flat, with a file that tells the class of each image (`jobs.data.flat_folder`). The check of a job reads no image and asks for
the status of links alone. A launch asks for the sizes of all files, and reads headers.
"""

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from jobs.data.augment import held_out
from jobs.data.beton import DataError
from jobs.data.content import Content, Look, Part
from jobs.data.faults import UnusableImage, listed, printable
from jobs.data.flat_folder import FlatListing, remedy
from jobs.data.headers import SizedFile, header_problems
from jobs.data.images import decoded
from jobs.data.listing import EMPTY, FAULTS, IMAGE_SUFFIXES, UNREADABLE, Listing
from jobs.experiment.containers import real_path
from jobs.experiment.files import sha256_of
from jobs.experiment.specs import DataSpec

READING: Final = 2  # to be raised when the same files would give other images, so that they are written again


def split_folders(data: DataSpec) -> tuple[Path, Path]:
    """The training folder and the test folder."""
    path = Path(data.path or "").expanduser()
    train = path / "train" if (path / "train").is_dir() or data.test_path is None else path
    return train, Path(data.test_path).expanduser() if data.test_path else path / "val"


def listings(data: DataSpec) -> tuple[Listing, Listing]:
    """The training images and the test images, listed. DataError where the file that tells the classes of test images does not tell all."""
    train, test = split_folders(data)
    listed_train = Listing(train)
    if data.test_labels is None:
        return listed_train, Listing(test)
    return listed_train, FlatListing(test, listed_train.classes, Path(data.test_labels).expanduser())


# checking


def imagefolder_problems(data: DataSpec) -> list[str]:
    """The errors in the layout and the names. No file is opened, nor asked for its size."""
    return look_at_folder(data, files=None).problems


def imagefolder_look(data: DataSpec) -> Look:
    """The errors in the layout, the names, the sizes of all files and the headers of some. Each folder is listed once."""
    files: list[SizedFile] = []
    look = look_at_folder(data, files)
    return replace(look, problems=[*look.problems, *header_problems(files, data)])


def look_at_folder(data: DataSpec, files: list[SizedFile] | None) -> Look:
    """What names tell, and sizes if they are asked for: `files` takes those above 0."""
    if missing := missing_folders(data):
        return Look(problems=missing)
    try:
        train, test = listings(data)
    except DataError as error:
        return Look(problems=[str(error)])
    counts = [counted(listing, files) for listing in (train, test)]
    problems = [*class_problems(train, test)]
    for listing, images in zip((train, test), counts, strict=True):
        problems += [*fault_problems(listing), *empty_class_problems(listing, images)]
    labels = np.repeat(np.arange(len(counts[0])), list(counts[0].values()))
    return Look(problems=problems or split_problems(data, labels), notes=folder_notes(train, test), labels=labels)


def missing_folders(data: DataSpec) -> list[str]:
    """Folders that are not there."""
    if data.path is None:
        return ["data.path is not set: give the folder that holds train/<class>/<image> and val/<class>/<image>"]
    return [
        f"{folder}: no such folder: data.path must hold train/<class>/<image>, and val/<class>/<image> or data.test_path"
        for folder in split_folders(data)
        if not folder.is_dir()
    ]


def counted(listing: Listing, files: list[SizedFile] | None) -> dict[str, int]:
    """Class -> number of its images. `files` takes their sizes and paths; one that is empty or gone is a fault."""
    if files is None:
        return {name: sum(1 for _ in listing.images(name)) for name in listing.classes}
    counts = {}
    for name in listing.classes:
        entries = list(listing.images(name))
        counts[name] = len(entries)
        for entry in entries:
            try:
                size = entry.stat().st_size
            except OSError as error:  # names of a folder can be readable where its files are not
                listing.faults[UNREADABLE].append(f"{entry.path} ({error.strerror})")
                continue
            if size:
                files.append((size, entry.path))
            else:
                listing.faults[EMPTY].append(entry.path)
    return counts


def class_problems(train: Listing, test: Listing) -> Iterator[str]:
    """Classes that make no classification, and folders for tests that cannot be counted."""
    if not train.classes:
        yield f"{train.root}: holds no class folders: images are expected in {train.root}/<class>/"
    elif len(train.classes) == 1:
        yield f"{train.root}: holds a single class, {printable(train.classes[0])}: a network that learns to tell classes apart needs two or more"
    if unknown := set(test.classes) - set(train.classes):
        yield f"{test.root}: class folders that {train.root} lacks: {listed(unknown)}: remove or rename them"
    if not test.classes and test.loose:
        yield f"{test.root}: {remedy(test.loose)}"
    elif not test.classes:
        yield f"{test.root}: holds no class folders: images are expected in {test.root}/<class>/"


def fault_problems(listing: Listing) -> list[str]:
    """Links and folders that cannot be followed, by kind."""
    return [
        f"{listing.root}: {fault} ({len(paths)}): {listed(os.path.relpath(path, listing.root) for path in paths)}: {FAULTS[fault]}"
        for fault, paths in listing.faults.items()
    ]


def empty_class_problems(listing: Listing, images: dict[str, int]) -> list[str]:
    """Classes without an image."""
    empty = [name for name, count in images.items() if not count]
    if not empty:
        return []
    skipped = f"; files with other endings are not read: {endings(listing.skipped)}" if listing.skipped else ""
    return [
        f"{listing.root}: class folders without an image ({len(empty)}): {listed(empty)}: add images whose names end in {', '.join(IMAGE_SUFFIXES)}, "
        f"or remove these folders{skipped}"
    ]


def endings(skipped: Counter[str]) -> str:
    """The most frequent endings, with counts."""
    more = f" and {len(skipped) - 10} other endings" if len(skipped) > 10 else ""
    return ", ".join(f"{count} {printable(name)}" for name, count in skipped.most_common(10)) + more


def split_problems(data: DataSpec, labels: NDArray[np.integer]) -> list[str]:
    """A validation split that would be empty. `labels`: of all training images."""
    if not 0 < data.val_fraction < 1 or held_out(labels, data.val_fraction, data.split_seed).any():
        return []
    return [
        f"data.val_fraction is {data.val_fraction:g}: of {len(labels)} training images, no image would be held out: give more images, or raise it"
    ]


def folder_notes(train: Listing, test: Listing) -> list[str]:
    """What is left out of folders whose images were listed, and classes without a test image."""
    notes = []
    for listing in (train, test):
        if listing.skipped:
            notes.append(f"{listing.root}: files that are not read, by their endings ({listing.skipped.total()}): {endings(listing.skipped)}")
        if listing.loose:
            notes.append(f"{listing.root}: images that lie in no class folder and are not read: {listing.loose}")
    if untested := set(train.classes) - set(test.classes):
        notes.append(f"{test.root}: classes without a folder here, which are not tested ({len(untested)}): {listed(untested)}")
    return notes


# identity


def imagefolder_identity(data: DataSpec, by_content: bool) -> list[Any]:
    """A digest of all names, with the size and time of change of every file, or with its content."""
    labels = [] if data.test_labels is None else [sha256_of(Path(data.test_labels).expanduser())]
    return ["reading", READING, *(folder_digest(listing, by_content) for listing in listings(data)), *labels]


def folder_digest(listing: Listing, by_content: bool) -> str:
    """A digest of listed images. Without their content, it includes where the folder lies."""
    digest = hashlib.sha256(("content" if by_content else real_path(listing.root)).encode(errors="surrogateescape"))
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for name in listing.classes:
            entries = listing.images(name)
            lines = pool.map(content_line, list(entries)) if by_content else map(status_line, entries)
            for entry, line in lines:
                digest.update(f"{entry.path[len(listing.root) :]}\0{line}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def status_line(entry: os.DirEntry[str]) -> tuple[os.DirEntry[str], str]:
    """A file with its size and time of change."""
    status = entry.stat()
    return entry, f"{status[stat.ST_SIZE]} {status.st_mtime_ns}"


def content_line(entry: os.DirEntry[str]) -> tuple[os.DirEntry[str], str]:
    """A file with the digest of its content."""
    return entry, sha256_of(Path(entry.path))


# reading


def read_imagefolder(data: DataSpec, img_size: int) -> Content:
    """The images, which are decoded when they are asked for."""
    train, test = listings(data)
    names = tuple(map(printable, train.classes))
    return Content(classes=len(names), names=names, train=folder_part(train, train.classes), test=folder_part(test, train.classes))


def folder_part(listing: Listing, classes: list[str]) -> Part:
    """The images of `classes`, numbered in the order of the names."""
    files = [(entry.path, label) for label, name in enumerate(classes) for entry in listing.images(name)]
    if not files:
        raise DataError(f"{listing.root}: holds no images in its class folders: their names must end in {', '.join(IMAGE_SUFFIXES)}")
    return Part(
        labels=np.array([label for _, label in files]),
        image=lambda sample: decoded(files[sample][0]),
        name=lambda sample: files[sample][0],
        content=lambda sample: file_content(files[sample][0]),
    )


def file_content(path: str) -> bytes:
    """The bytes of an image file. UnusableImage where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UnusableImage(path, fault="cannot be decoded", detail=error.strerror or str(error), remedy="replace or remove {it}") from error
