"""FFCV's file format (.beton, version 2) without FFCV: encode, lay out, check, index, hash. `jobs.data.shards` writes files.

A file consists of a header, field descriptors, one metadata record for each sample, pages of image bytes, and an allocation table. The bytes are
those of `ffcv.writer.DatasetWriter` with one worker (ffcv 1.0.2: writer.py, types.py, memory_allocator.py).

Files are written here because FFCV's writer hangs when a sample fails, is not reproducible with several workers, and needs FFCV on the machine. They
are checked here because FFCV reads a damaged file without an error, or crashes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

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
SAMPLE: Final = np.dtype([("", IMAGE_RECORD), ("", "<i8")], align=True)  # image and label
STORED: Final = np.dtype([("mode", "<u1"), ("width", "<u2"), ("height", "<u2"), ("size", "<u8")])  # what a writer knows of an image
INDEX: Final = np.dtype([("ptr", "<i8"), ("size", "<i8"), ("label", "<i8"), ("height", "<i4"), ("width", "<i4"), ("mode", "<i4")])


class DataError(ValueError):
    """A data set cannot be used. The message names the file and the remedy."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """One image as a file holds it."""

    mode: int
    height: int
    width: int
    content: NDArray[np.uint8]  # (bytes,)
    starts: NDArray[np.void] | None = None  # of a JPEG's rows, if they are known (`jobs.data.decoding.row_starts`)


# writing


def encoded(image: NDArray[np.uint8], jpg: bool) -> Encoded:
    """`image`, (H, W, 3) RGB, as raw pixels or as a JPEG."""
    content = np.ascontiguousarray(image).reshape(-1)
    if jpg:
        import cv2

        quality = [int(cv2.IMWRITE_JPEG_QUALITY), JPEG_QUALITY]
        content = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)[1].reshape(-1)
    return Encoded(mode=JPG if jpg else RAW, height=image.shape[0], width=image.shape[1], content=content)


def write_tables(file: BinaryIO, stored: NDArray[np.void], labels: NDArray[np.integer]) -> None:
    """Writes everything of a file with the fields `image` and `label` but its images: `stored`, STORED (n,), lie where `laid_out` says."""
    offsets, end = laid_out(stored["size"])
    records = np.zeros(len(labels), SAMPLE)
    records["f1"] = labels
    for name in ("mode", "width", "height"):
        records["f0"][name] = stored[name]
    records["f0"]["data_ptr"] = offsets
    allocations = np.zeros(len(labels), ALLOCATION)
    allocations["sample_id"], allocations["ptr"], allocations["size"] = np.arange(len(labels)), offsets, stored["size"]
    header = np.zeros((), HEADER)
    header["version"], header["num_fields"], header["num_samples"], header["page_size"] = VERSION, 2, len(labels), PAGE_BYTES
    header["alloc_table_ptr"] = end
    write_at(file, end, allocations)
    write_at(file, 0, header, field_descriptors({"image": IMAGE, "label": INTEGER}), records)


def laid_out(sizes: NDArray[np.integer]) -> tuple[NDArray[np.uint64], int]:
    """Where each image of a file starts, (n,), and where its last page ends. No image crosses a page. Pages are padded with zeros."""
    offsets, offset = np.zeros(len(sizes), np.uint64), next_page(HEADER.itemsize + 2 * FIELD.itemsize + len(sizes) * SAMPLE.itemsize)
    for sample, size in enumerate(sizes.tolist()):
        if offset % PAGE_BYTES + size > PAGE_BYTES:
            offset = next_page(offset)
        offsets[sample] = offset
        offset += size
    return offsets, next_page(offset)


def field_descriptors(types: dict[str, int]) -> NDArray[np.void]:
    """Descriptors of the named fields, FIELD (n,)."""
    fields = np.zeros(len(types), FIELD)
    for field, (name, type_id) in zip(fields, types.items(), strict=True):
        field["type_id"] = type_id
        field["name"][: len(name)] = np.frombuffer(name.encode("ascii"), np.uint8)
    return fields


def next_page(offset: int) -> int:
    """Where the first page at or after `offset` starts."""
    return -(-offset // PAGE_BYTES) * PAGE_BYTES


def write_at(file: BinaryIO, offset: int, *arrays: NDArray[Any]) -> None:
    """Writes the bytes of `arrays` one after the other from `offset` on."""
    file.seek(offset)
    for array in arrays:
        file.write(array.tobytes())


# reading


def read_index(path: Path) -> NDArray[np.void]:
    """Where each sample's image lies, its shape and its label, INDEX (n,).

    Raises DataError when the file is missing, truncated, damaged, or not a .beton file.
    """
    try:
        return checked_index(path)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}: give the path of a .beton file that can be read") from error


def checked_index(path: Path) -> NDArray[np.void]:
    """The index of a file. Every number of the file is checked before it is used."""
    size = path.stat().st_size
    header = records_at(path, HEADER, 0, 1, size)[0]
    if header["version"] != VERSION or not 1 <= header["num_fields"] <= 64 or header["num_samples"] < 1:
        raise DataError(f"{path}: not a .beton file of version {VERSION} with samples in it: write it again with FFCV 1.x")
    table = int(header["alloc_table_ptr"])
    if not HEADER.itemsize < table < size or (size - table) % ALLOCATION.itemsize:
        raise DataError(
            f"{path}: truncated or never finished: its allocation table should start at byte {table}, and the file has {size} bytes: "
            "copy or write it again"
        )
    fields = records_at(path, FIELD, HEADER.itemsize, int(header["num_fields"]), table)
    columns = metadata_columns(path, fields)
    sample_record = np.dtype([("", RECORDS[type_id]) for type_id in fields["type_id"]], align=True)
    samples = records_at(path, sample_record, HEADER.itemsize + fields.nbytes, int(header["num_samples"]), table)
    allocations = records_at(path, ALLOCATION, table, (size - table) // ALLOCATION.itemsize, size)
    return joined_index(path, samples[columns["image"]], samples[columns["label"]], allocations, table)


def records_at(path: Path, dtype: np.dtype[np.void], offset: int, count: int, end: int) -> NDArray[np.void]:
    """`count` records at `offset`. DataError unless they all lie before byte `end`."""
    if offset + count * dtype.itemsize > end:
        raise DataError(
            f"{path}: truncated or not a .beton file: {count} records of {dtype.itemsize} bytes do not fit from byte {offset} to {end}: "
            "copy or write it again"
        )
    return np.fromfile(path, dtype, count, offset=offset)


def metadata_columns(path: Path, fields: NDArray[np.void]) -> dict[str, str]:
    """The metadata column of `image` and that of `label`."""
    names = [bytes(name).split(b"\0")[0].decode("ascii", "replace") for name in fields["name"]]
    types: dict[str, int] = dict(zip(names, fields["type_id"].tolist(), strict=True))
    if max(types.values()) >= len(RECORDS):
        raise DataError(f"{path}: a field of {names} has a type that FFCV does not define: write the file with FFCV's own fields")
    for name, type_id, kind in (("image", IMAGE, "RGBImageField"), ("label", INTEGER, "IntField")):
        if types.get(name) != type_id:
            raise DataError(
                f"{path}: no field {name!r} of type {kind}; its fields are {names}: write it as {{'image': RGBImageField(), 'label': IntField()}}"
            )
    return {name: f"f{names.index(name)}" for name in ("image", "label")}


def joined_index(path: Path, images: NDArray[np.void], labels: NDArray[np.integer], allocations: NDArray[np.void], table: int) -> NDArray[np.void]:
    """Metadata and allocations as one table, INDEX (n,). Every image lies between the header and byte `table`."""
    allocations = allocations[np.argsort(allocations["ptr"], kind="stable")]
    match = np.searchsorted(allocations["ptr"], images["data_ptr"]).clip(max=len(allocations) - 1)
    index = np.zeros(len(images), INDEX)
    index["ptr"], index["size"], index["label"] = images["data_ptr"], allocations["size"][match], labels
    index["height"], index["width"], index["mode"] = images["height"], images["width"], images["mode"]
    pixels = index["height"].astype(np.int64) * index["width"] * 3
    faults = {
        "point at no image": allocations["ptr"][match] != images["data_ptr"],
        "lie outside of the file": (index["ptr"] < HEADER.itemsize) | (index["size"] < 1) | (index["size"] > table - index["ptr"]),
        "have no known encoding": (index["mode"] != JPG) & (index["mode"] != RAW),
        "have a size that does not fit their dimensions": (pixels < 1) | ((index["mode"] == RAW) & (pixels != index["size"])),
        "have a negative label": index["label"] < 0,
    }
    for fault, samples in faults.items():
        if samples.any():
            raise DataError(f"{path}: damaged: {samples.sum()} samples {fault}, first sample {samples.argmax()}: copy or write the file again")
    return index


# digests


def sha256_file(path: Path) -> Path:
    """The file beside `path` that holds its digest, in the format of `sha256sum`."""
    return path.with_name(path.name + ".sha256")


def write_sha256(path: Path) -> None:
    """Writes the digest of `path` to the file beside it."""
    with written_aside(sha256_file(path)) as aside:
        aside.write_text(f"{sha256_of(path)}  {path.name}\n", encoding="utf-8", errors="surrogateescape")
