"""Where the rows of every JPEG of a .beton start, in a file beside it: a loader then reads only the codes of the box that it needs.

The codes of a JPEG have no marks at which a reader could begin, and they are most of the time that a crop takes. The file is written with the .beton,
takes about a five-hundredth of its size, and is used only if it is whole and belongs to that very .beton. Without it, all is the same but the time.

train.beton.rows    header, then for each image its number of rows (u4) and START of each, then where those of each image lie, (n,) u8; 0: nowhere
"""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from jobs.experiment.files import written_aside

MAGIC: Final = b"rowstart"
# images: how many the .beton has; key: of where they lie in it; table: where the last part starts; crc: of all that follows the header
HEADER: Final = np.dtype([("magic", "S8"), ("images", "<u8"), ("key", "<u8"), ("table", "<u8"), ("crc", "<u8")])


def starts_file(path: Path) -> Path:
    """The file of row starts of a .beton."""
    return path.with_name(f"{path.name}.rows")


def write_starts(path: Path, offsets: NDArray[np.integer], sizes: NDArray[np.integer], starts: Sequence[NDArray[np.void]]) -> None:
    """Writes the row starts of `path`, whose images lie at `offsets` with so many bytes; START (rows,) of each image, none for a raw one.

    No file is written where no image has any.
    """
    if not any(map(len, starts)):
        return starts_file(path).unlink(missing_ok=True)
    at, crc, table = HEADER.itemsize, 0, np.zeros(len(offsets), np.uint64)
    with written_aside(starts_file(path)) as aside, aside.open("wb") as file:
        file.seek(at)
        for sample, rows in enumerate(starts):
            if len(rows):
                written = np.uint32(len(rows)).tobytes() + rows.tobytes()
                table[sample], crc = at, zlib.crc32(written, crc)
                at += file.write(written)
        crc = zlib.crc32(table.tobytes(), crc)
        file.write(table.tobytes())
        file.seek(0)
        file.write(np.array((MAGIC, len(offsets), key_of(offsets, sizes), at, crc), HEADER).tobytes())


def key_of(offsets: NDArray[np.integer], sizes: NDArray[np.integer]) -> int:
    """A number that tells one .beton from another: of where its images lie."""
    return zlib.crc32(sizes.astype("<u8").tobytes(), zlib.crc32(offsets.astype("<u8").tobytes()))


def mapped_starts(path: Path) -> NDArray[np.uint8] | None:
    """The bytes of the row starts of a .beton; None where it has none."""
    try:
        return np.memmap(starts_file(path), np.uint8, "r")
    except (OSError, ValueError):  # missing, unreadable or empty
        return None


def starts_of(path: Path, index: NDArray[np.void]) -> NDArray[np.int64]:
    """Where the row starts of each image lie in `mapped_starts`, (n,). All 0 where the file is missing, torn, or of another .beton."""
    content, nowhere = mapped_starts(path), np.zeros(len(index), np.int64)
    if content is None or len(content) < HEADER.itemsize:
        return nowhere
    header = content[: HEADER.itemsize].view(HEADER)[0]
    table, images = int(header["table"]), int(header["images"])
    if header["magic"] != MAGIC or images != len(index) or len(content) != table + 8 * images or header["key"] != key_of(index["ptr"], index["size"]):
        return nowhere
    if zlib.crc32(content[HEADER.itemsize :].data) != header["crc"]:
        return nowhere
    return np.array(content[table:]).view("<i8")
