"""The room that the files of a data set need on a disk, known before they are written."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from jobs.data.beton import ALLOCATION, FIELD, HEADER, PAGE_BYTES, SAMPLE, DataError
from jobs.data.content import Content, Part
from jobs.data.encoding import encoded_sample
from jobs.data.faults import UnusableImage
from jobs.data.shards import SAMPLES
from jobs.experiment.specs import DataSpec

TRIED: Final = 128  # images of a file that are encoded to learn their size
ONE_IN: Final = 50  # of a small file


@dataclass(frozen=True, kw_only=True)
class Space:
    """The room that writing takes, and the room that there is."""

    needed_bytes: int  # about
    free_bytes: int


def checked_space(data: DataSpec, content: Content, folder: Path, written: int) -> Space:
    """The room on the disk of `folder`. `written`: images whose shards are complete. DataError if the other images need more than there is."""
    images = len(content.train.labels) + len(content.test.labels)
    needed = round(needed_bytes(data, content) * (1 - written / images))
    free = free_bytes(folder)
    if needed > free:
        raise DataError(
            f"{folder.parent}: about {shown(needed)} are needed for {images:,} images, and {shown(free)} are free: free space there, "
            "set cluster.cache to a folder on another disk, or make the images smaller with data.write_mode: jpg or data.max_resolution"
        )
    return Space(needed_bytes=needed, free_bytes=free)


def needed_bytes(data: DataSpec, content: Content) -> int:
    """About how many bytes the files of a data set take while they are written, from images that are encoded for it."""
    shard = 0.0
    total = 0.0
    for part in (content.train, content.test):
        count, mean = len(part.labels), mean_bytes(data, part)
        shard = max(shard, min(count, SAMPLES) * mean)
        total += HEADER.itemsize + 2 * FIELD.itemsize + count * (SAMPLE.itemsize + ALLOCATION.itemsize + mean) + 2 * PAGE_BYTES
    return round(total + shard)


def mean_bytes(data: DataSpec, part: Part) -> float:
    """The mean size of an encoded image of a part; images that cannot be used are left out."""
    count = len(part.labels)
    samples = np.linspace(0, count - 1, max(1, min(TRIED, count // ONE_IN)), dtype=int)
    sizes = []
    for sample in samples.tolist():
        try:
            sizes.append(encoded_sample(data, part, sample).content.size)
        except UnusableImage:
            continue
    return float(np.mean(sizes)) if sizes else 0.0


def free_bytes(folder: Path) -> int:
    """The bytes that this user can write to the disk of `folder`, which need not exist."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return shutil.disk_usage(there).free


def shown(count: float) -> str:
    """A number of bytes for people."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
