"""FFCV's file format (.beton, version 2) without FFCV: write, check, index, hash.

A file is: header, field descriptors, one metadata record a sample, pages of image bytes, allocation table. The bytes are those that
`ffcv.writer.DatasetWriter` writes with one worker (ffcv 1.0.2: writer.py, types.py, memory_allocator.py). It is written here because FFCV's writer
hangs for ever when a sample fails, is not reproducible with several workers and needs FFCV on the machine; and it is checked here because FFCV reads
damaged files without an error, or with a segmentation fault.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from jobs.experiment.files import sha256_of, written_aside

VERSION: Final = 2
PAGE_BYTES: Final = 8 << 20  # FFCV's default; no image may be larger
JPEG_QUALITY: Final = 90  # FFCV's default
JPG, RAW = 0, 1
INTEGER, IMAGE = 1, 2
HEADER: Final = np.dtype(
    [("version", "<u2"), ("num_fields", "<u2"), ("page_size", "<u4"), ("num_samples", "<u8"), ("alloc_table_ptr", "<u8")], align=True
)
FIELD: Final = np.dtype([("type_id", "<u1"), ("name", "<u1", 16), ("arguments", "<u1", 1024)], align=True)
ALLOCATION: Final = np.dtype([("sample_id", "<u8"), ("ptr", "<u8"), ("size", "<u8")])
IMAGE_RECORD: Final = np.dtype([("mode", "<u1"), ("width", "<u2"), ("height", "<u2"), ("data_ptr", "<u8")])
BYTES_RECORD: Final = np.dtype([("ptr", "<u8"), ("size", "<u8")])
# FFCV's type_id -> metadata of one sample: float, int, RGB image, bytes, array, JSON, tensor
RECORDS: Final = (np.dtype("<f8"), np.dtype("<i8"), IMAGE_RECORD, BYTES_RECORD, np.dtype("<u8"), BYTES_RECORD, np.dtype("<u8"))
INDEX: Final = np.dtype([("ptr", "<i8"), ("size", "<i8"), ("label", "<i8"), ("height", "<i4"), ("width", "<i4"), ("mode", "<i4")])


class DataError(ValueError):
    """A data set that cannot be used: the message names the file and what to do."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """One image as a file holds it; `content` is uint8, one-dimensional."""

    mode: int
    height: int
    width: int
    content: NDArray[np.uint8]


def encoded(image: NDArray[np.uint8], jpg: bool) -> Encoded:
    """`image`, (H, W, 3) uint8 RGB, as raw pixels or as a JPEG."""
    content = np.ascontiguousarray(image).reshape(-1)
    if jpg:
        import cv2

        quality = [int(cv2.IMWRITE_JPEG_QUALITY), JPEG_QUALITY]
        content = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)[1].reshape(-1)
    return Encoded(mode=JPG if jpg else RAW, height=image.shape[0], width=image.shape[1], content=content)


def write_beton(path: Path, encode: Callable[[int], Encoded], labels: NDArray[np.integer]) -> None:
    """Writes fields `image` and `label`, whole or not at all; the same bytes for any number of cores. OSError when the disk does not take them."""
    records = np.zeros(len(labels), np.dtype([("", IMAGE_RECORD), ("", "<i8")], align=True))
    records["f1"] = labels
    allocations = np.zeros(len(labels), ALLOCATION)
    header = np.zeros((), HEADER)
    header["version"], header["num_fields"], header["num_samples"], header["page_size"] = VERSION, 2, len(labels), PAGE_BYTES
    fields = _fields({"image": IMAGE, "label": INTEGER})
    start = -(-(HEADER.itemsize + fields.nbytes + records.nbytes) // PAGE_BYTES) * PAGE_BYTES
    with written_aside(path) as aside, aside.open("r+b") as file:
        end = _write_pages(file, start, _in_order(encode, len(labels)), records["f0"], allocations)
        header["alloc_table_ptr"] = end
        _write_at(file, end, allocations)
        _write_at(file, 0, header, fields, records)


def _fields(types: dict[str, int]) -> NDArray[np.void]:
    """FIELD (n,): descriptors of the named fields."""
    fields = np.zeros(len(types), FIELD)
    for field, (name, type_id) in zip(fields, types.items()):
        field["type_id"] = type_id
        field["name"][: len(name)] = np.frombuffer(name.encode("ascii"), np.uint8)
    return fields


def _in_order(encode: Callable[[int], Encoded], count: int, chunk: int = 256) -> Iterator[Encoded]:
    """encode(0), encode(1), ...: computed by as many threads as there are cores, at most `chunk` images ahead of the reader."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for first in range(0, count, chunk):
            yield from pool.map(encode, range(first, min(first + chunk, count)))


def _write_pages(file: BinaryIO, start: int, images: Iterator[Encoded], records: NDArray[np.void], allocations: NDArray[np.void]) -> int:
    """Offset after the last page. Fills `records` and `allocations`; no image crosses a page, and every page is filled up with zeros."""
    place = start
    for sample, image in enumerate(images):
        size = image.content.size
        if size > PAGE_BYTES:
            raise DataError(
                f"image {sample} ({image.width} x {image.height}) takes {size} bytes, more than a page of {PAGE_BYTES}: "
                "set data.max_resolution, or data.write_mode: jpg"
            )
        if place % PAGE_BYTES + size > PAGE_BYTES:
            place = -(-place // PAGE_BYTES) * PAGE_BYTES
        records[sample] = (image.mode, image.width, image.height, place)
        allocations[sample] = (sample, place, size)
        _write_at(file, place, image.content)
        place += size
    end = -(-place // PAGE_BYTES) * PAGE_BYTES
    file.truncate(end)
    return end


def _write_at(file: BinaryIO, offset: int, *arrays: NDArray) -> None:
    file.seek(offset)
    for array in arrays:
        file.write(array.tobytes())


def read_index(path: Path) -> NDArray[np.void]:
    """INDEX (n,): where each sample's image lies, its shape and its label. DataError when the file is missing, cut, damaged or not such a file."""
    try:
        return _read_index(path)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}: give the path of a .beton file that can be read") from error


def _read_index(path: Path) -> NDArray[np.void]:
    size = path.stat().st_size
    header = _at(path, HEADER, 0, 1, size)[0]
    if header["version"] != VERSION or not 1 <= header["num_fields"] <= 64 or header["num_samples"] < 1:
        raise DataError(f"{path}: not a .beton file of version {VERSION} with samples in it: write it again with FFCV 1.x")
    table = int(header["alloc_table_ptr"])
    if not HEADER.itemsize < table < size or (size - table) % ALLOCATION.itemsize:
        raise DataError(
            f"{path}: truncated or never finished: its allocation table should start at byte {table}, the file has {size}: copy or write it again"
        )
    fields = _at(path, FIELD, HEADER.itemsize, int(header["num_fields"]), table)
    columns = _columns(path, fields)
    records = _at(
        path,
        np.dtype([("", RECORDS[type_id]) for type_id in fields["type_id"]], align=True),
        HEADER.itemsize + fields.nbytes,
        int(header["num_samples"]),
        table,
    )
    allocations = _at(path, ALLOCATION, table, (size - table) // ALLOCATION.itemsize, size)
    return _checked(path, records[columns["image"]], records[columns["label"]], allocations, table)


def _at(path: Path, dtype: np.dtype, offset: int, count: int, end: int) -> NDArray[np.void]:
    """`count` records at `offset`, which all must lie before byte `end`."""
    if offset + count * dtype.itemsize > end:
        raise DataError(
            f"{path}: truncated or not a .beton file: {count} records of {dtype.itemsize} bytes do not fit from byte {offset} to {end}: "
            "copy or write it again"
        )
    return np.fromfile(path, dtype, count, offset=offset)


def _columns(path: Path, fields: NDArray[np.void]) -> dict[str, str]:
    """Metadata column of `image` and of `label`."""
    names = [bytes(name).split(b"\0")[0].decode("ascii", "replace") for name in fields["name"]]
    kinds = dict(zip(names, fields["type_id"].tolist()))
    if max(kinds.values()) >= len(RECORDS):
        raise DataError(f"{path}: a field of {names} has a type of its own: write the file with FFCV's own fields")
    for name, type_id, kind in (("image", IMAGE, "RGBImageField"), ("label", INTEGER, "IntField")):
        if kinds.get(name) != type_id:
            raise DataError(
                f"{path}: no field {name!r} of type {kind}; its fields are {names}: write it as {{'image': RGBImageField(), 'label': IntField()}}"
            )
    return {name: f"f{names.index(name)}" for name in ("image", "label")}


def _checked(path: Path, images: NDArray[np.void], labels: NDArray[np.integer], allocations: NDArray[np.void], table: int) -> NDArray[np.void]:
    """INDEX (n,), every number of which stays inside of the file."""
    allocations = allocations[np.argsort(allocations["ptr"], kind="stable")]
    found = np.searchsorted(allocations["ptr"], images["data_ptr"]).clip(max=len(allocations) - 1)
    index = np.zeros(len(images), INDEX)
    index["ptr"], index["size"], index["label"] = images["data_ptr"], allocations["size"][found], labels
    index["height"], index["width"], index["mode"] = images["height"], images["width"], images["mode"]
    pixels = index["height"].astype(np.int64) * index["width"] * 3
    damage = {
        "points at no image": allocations["ptr"][found] != images["data_ptr"],
        "lies outside of the file": (index["ptr"] < HEADER.itemsize) | (index["size"] < 1) | (index["size"] > table - index["ptr"]),
        "has no known encoding": (index["mode"] != JPG) & (index["mode"] != RAW),
        "has other dimensions than bytes": (pixels < 1) | ((index["mode"] == RAW) & (pixels != index["size"])),
        "has a negative label": index["label"] < 0,
    }
    for what, samples in damage.items():
        if samples.any():
            raise DataError(f"{path}: damaged: sample {samples.argmax()} and {samples.sum() - 1} more: it {what}: copy or write the file again")
    return index


def sha256_file(path: Path) -> Path:
    """Where the digest of `path` is kept, in the format of `sha256sum`."""
    return path.with_name(path.name + ".sha256")


def write_sha256(path: Path) -> None:
    """Keeps the digest of `path` beside it."""
    with written_aside(sha256_file(path)) as aside:
        aside.write_text(f"{sha256_of(path)}  {path.name}\n")
