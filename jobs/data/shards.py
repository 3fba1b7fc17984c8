"""A .beton in pieces: ranges of samples that processes write in any sequence, then assembled into one file.

FFCV's layout depends on the sizes of all images before an image, which are known once they are encoded. So a shard holds its images one after the
other, and they move to their offsets when all shards are there. The bytes of the file depend neither on the shards nor on who wrote them.

<part>-<number>.images   the images of a shard; gone once they are in the assembled file
<part>-<number>.faults   its images that cannot be used, if there are any. A black pixel stands for each
<part>-<number>.starts   where the rows of its JPEGs start: how many there are in each image, (n,) u4, then START of all (`jobs.data.row_starts`)
<part>-<number>.npy      STORED of its images. It is written last: a shard that has it is complete
<part>-<number>.lock     the claim of the process that writes it
files/<part>.beton       the file, while it is assembled; it is whole once its digest is beside it
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from jobs.data.beton import JPG, PAGE_BYTES, RAW, STORED, DataError, Encoded, laid_out, sha256_file, write_at, write_sha256, write_tables
from jobs.data.decoding import START, row_starts
from jobs.data.faults import Faults, UnusableImage
from jobs.data.row_starts import starts_file, write_starts
from jobs.experiment.files import write_json, written_aside

SAMPLES: Final = 1024  # of a shard: what a kill costs each process
AHEAD: Final = 256  # images that threads encode before the first of them is written

Encode = Callable[[int], Encoded]


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A range of the samples of one file."""

    folder: Path
    part: str
    samples: range

    def path(self, ending: str) -> Path:
        """A file of this shard."""
        return self.folder / f"{self.part}-{self.samples.start // SAMPLES:05}.{ending}"

    def done(self) -> bool:
        """True if it is complete."""
        return self.path("npy").exists()


def shards_of(folder: Path, part: str, count: int) -> list[Shard]:
    """The shards of `count` samples."""
    return [Shard(folder=folder, part=part, samples=range(first, min(first + SAMPLES, count))) for first in range(0, count, SAMPLES)]


# writing


def write_shard(shard: Shard, encode: Encode, *, threads: int = 1, tick: Callable[[int], None] = lambda images: None) -> None:
    """Encodes and writes the images of a shard. `tick` is called with the number of images that were written since its last call.

    An UnusableImage is kept for `raise_faults`, so that all images are tried.
    Raises OSError when the disk does not take them; what was written then goes, so that the disk has room for smaller things.
    """
    stored, counts, starts = np.zeros(len(shard.samples), STORED), np.zeros(len(shard.samples), np.uint32), []
    faults: list[UnusableImage] = []
    images = shard.path("images")
    try:
        with images.open("wb") as file:
            for row, image in enumerate(in_order(tried(encode, faults), shard.samples, threads)):
                check_size(shard.samples[row], image)
                file.write(image.content.data)
                stored[row] = (image.mode, image.width, image.height, image.content.size)
                if image.mode == JPG:
                    starts.append(row_starts(image.content) if image.starts is None else image.starts)
                    counts[row] = len(starts[-1])
                tick(1)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        images.unlink(missing_ok=True)
        raise
    if faults:
        write_json(shard.path("faults"), [fault.to_json() for fault in faults])
    with written_aside(shard.path("starts")) as aside:
        aside.write_bytes(counts.tobytes() + b"".join(rows.tobytes() for rows in starts))
    with written_aside(shard.path("npy")) as aside, aside.open("wb") as index:
        np.save(index, stored)


def tried(encode: Encode, faults: list[UnusableImage]) -> Encode:
    """`encode`, but an image that cannot be used is added to `faults`, and a black pixel stands for it."""

    def image_or_pixel(sample: int) -> Encoded:
        try:
            return encode(sample)
        except UnusableImage as error:
            faults.append(error)
            return Encoded(mode=RAW, height=1, width=1, content=np.zeros(3, np.uint8))

    return image_or_pixel


def raise_faults(shards: Iterable[Shard]) -> None:
    """Raises a DataError that names all images of complete shards that cannot be used."""
    faults = Faults()
    for shard in shards:
        if shard.path("faults").exists():
            for fault in json.loads(shard.path("faults").read_bytes()):
                faults.add(UnusableImage(**fault))
    faults.raise_if_any()


def check_size(sample: int, image: Encoded) -> None:
    """DataError for an image that no page holds."""
    if image.content.size > PAGE_BYTES:
        raise DataError(
            f"image {sample} ({image.width} x {image.height}) takes {image.content.size} bytes, more than a page of {PAGE_BYTES}: "
            "set data.max_resolution, or data.write_mode: jpg"
        )


def in_order(encode: Encode, samples: range, threads: int) -> Iterator[Encoded]:
    """The images of `samples`, in that order, encoded by so many threads at most AHEAD images before they are asked for."""
    if threads == 1:
        yield from map(encode, samples)
        return
    with ThreadPoolExecutor(threads) as pool:
        for first in range(samples.start, samples.stop, AHEAD):
            yield from pool.map(encode, range(first, min(first + AHEAD, samples.stop)))


# assembling


def assembled_path(folder: Path, part: str) -> Path:
    """Where the file of a part is assembled."""
    return folder / "files" / f"{part}.beton"


def drop_lost(shards: Sequence[Shard]) -> bool:
    """Makes complete shards of one file whose images are neither there nor in the assembled file incomplete again; True if there were any.

    They are lost when a machine loses its power, or when a user removes files.
    """
    path = assembled_path(shards[0].folder, shards[0].part)
    if sha256_file(path).exists():
        return False
    sizes = [np.load(shard.path("npy"))["size"] for shard in shards]
    offsets, _ = laid_out(np.concatenate(sizes))
    assembled = path.stat().st_size if path.exists() else 0
    lost = False
    for shard, size in zip(shards, sizes, strict=True):
        images, last = shard.path("images"), shard.samples[-1]
        there = images.stat().st_size == size.sum() if images.exists() else int(offsets[last]) + int(size[-1]) <= assembled
        if not there:
            shard.path("npy").unlink()
            lost = True
    return lost


def assemble(shards: Sequence[Shard], labels: NDArray[np.integer]) -> None:
    """Moves the images of all shards, which are complete, into the file of their part, and writes its tables and its digest.

    Each shard is removed once its images are on the disk, so that the disk needs room for one shard more than the file. Killed at any moment, the
    call can be repeated.
    """
    path = assembled_path(shards[0].folder, shards[0].part)
    if sha256_file(path).exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = np.concatenate([np.load(shard.path("npy")) for shard in shards])
    offsets, end = laid_out(stored["size"])
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
        for shard in shards:
            if shard.path("images").exists():
                move_images(shard, file, offsets[shard.samples.start : shard.samples.stop], stored["size"][shard.samples.start : shard.samples.stop])
        file.truncate(end)
        write_tables(file, stored, labels)
        file.flush()
        os.fsync(file.fileno())
    write_starts(path, offsets, stored["size"], [rows for shard in shards for rows in starts_of_shard(shard)])
    write_sha256(path)


def starts_of_shard(shard: Shard) -> list[NDArray[np.void]]:
    """The row starts of each image of a complete shard, START (rows,). An older version wrote shards without them."""
    images, file = len(shard.samples), shard.path("starts")
    content = np.fromfile(file, np.uint8) if file.exists() else np.zeros(4 * images, np.uint8)
    counts, starts = content[: 4 * images].view(np.uint32), content[4 * images :].view(START)
    return np.split(starts, np.cumsum(counts)[:-1].astype(int))


def move_images(shard: Shard, file: BinaryIO, offsets: NDArray[np.integer], sizes: NDArray[np.integer]) -> None:
    """Copies the images of a shard to their offsets in `file`, then removes them. Those that lie side by side go together."""
    breaks = np.flatnonzero(offsets[1:] != offsets[:-1] + sizes[:-1]) + 1
    with shard.path("images").open("rb") as images:
        for first, last in pairwise([0, *breaks.tolist(), len(sizes)]):
            write_at(file, int(offsets[first]), np.frombuffer(images.read(int(sizes[first:last].sum())), np.uint8))
    file.flush()
    os.fsync(file.fileno())
    shard.path("images").unlink()


def write_beton(path: Path, encode: Encode, labels: NDArray[np.integer]) -> None:
    """Writes a file with the fields `image` and `label`, whole or not at all, by the threads of this process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        shards = shards_of(Path(folder), "all", len(labels))
        for shard in shards:
            write_shard(shard, encode, threads=len(os.sched_getaffinity(0)))
        raise_faults(shards)
        assemble(shards, labels)
        assembled = assembled_path(Path(folder), "all")
        starts_file(path).unlink(missing_ok=True)
        if starts_file(assembled).exists():
            starts_file(assembled).replace(starts_file(path))
        assembled.replace(path)
