"""An append-only file of the records that merges have read, so that the next merge reads only new files.

Each merge appends a block: columns that identify the records, then their texts. Equal contents of several files are kept once. The store is derived:
without it, or with a damaged block, files are read again.
"""

import fcntl
import hashlib
import inspect
import mmap
import os
import struct
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from jobs.experiment.records import SCHEMA, Record

READERS = {Path(__file__).parent: ("comparability.py", "decoding.py", "validation.py")} | {  # the code that decides what an entry holds
    Path(inspect.getfile(Record)).parent: ("files.py", "identity.py", "plugins.py", "published.py", "records.py", "specs.py")
}


def readers() -> str:
    """The beginning of the SHA-256 of the code that reads records. Entries that other code made may lack a field, have one more, or other keys."""
    code = b"\0".join((folder / name).read_bytes() for folder, names in READERS.items() for name in names)
    return hashlib.sha256(code).hexdigest()[:12]


HEADER = f"vssm-bench records, store 2, schema {SCHEMA}, read by {readers()}\n".encode()
BLOCK = struct.Struct("<QQI")  # bytes of columns, bytes of texts, CRC-32 of the columns
SETTLING_NS = 2_000_000_000  # a file changed this recently may change again within a tick of its clock, so it is read again next time

File = tuple[str, int, int]  # path, size, time of change in ns


class Entry(NamedTuple):
    """A record file and its content."""

    path: str  # absolute
    size: int
    mtime_ns: int
    sha256: str
    cell: str  # equal for runs of one cell
    key: str  # digest of the comparability key
    status: str
    finished: str
    outcome: str
    text: bytes | memoryview


class Columns(msgspec.Struct, array_like=True):
    """The entries of a block, without their texts."""

    path: list[str]
    size: list[int]
    mtime_ns: list[int]
    sha256: list[str]
    cell: list[str]
    key: list[str]
    status: list[str]
    finished: list[str]
    outcome: list[str]
    length: list[int]  # bytes of each of the concatenated texts; 0: another entry of the store has the same text


COLUMNS = msgspec.msgpack.Decoder(Columns)


class Store:
    """The entries of a store file; a later entry of a path replaces those before it. `path` None: an empty store that keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.entries: dict[str, Entry] = {}
        self.texts: dict[str, memoryview] = {}  # by SHA-256
        if path and path.exists():
            self.read(mapped(path))

    def read(self, content: memoryview) -> None:
        """Adds the entries of every whole block."""
        if content[: len(HEADER)] == HEADER:
            for columns, texts in blocks(content, len(HEADER)):
                self.take(columns, texts)

    def take(self, columns: Columns, texts: memoryview) -> None:
        """Adds the entries of a block."""
        ends = accumulate(columns.length)
        own = [texts[end - length : end] for length, end in zip(columns.length, ends, strict=True)]
        self.texts |= {sha256: text for sha256, text in zip(columns.sha256, own, strict=True) if text}
        known = [text or self.texts.get(sha256, text) for sha256, text in zip(columns.sha256, own, strict=True)]
        *fields, _ = (getattr(columns, name) for name in Columns.__struct_fields__)
        self.entries |= {entry.path: entry for entry in map(Entry, *fields, known) if entry.text}

    def known(self, files: Iterable[File]) -> tuple[list[Entry], list[File]]:
        """(the entries of files that have not changed since they were read, the files that are new or have changed)."""
        entries: list[Entry] = []
        unread: list[File] = []
        for file in files:
            entry = self.entries.get(file[0])
            if entry is not None and entry[:3] == file:
                entries.append(entry)
            else:
                unread.append(file)
        return entries, unread

    def append(self, entries: Sequence[Entry]) -> None:
        """Appends entries to the file. A text that the store already has is not written again. A lock lets one merge write at a time."""
        settled = time.time_ns() - SETTLING_NS
        kept = [entry for entry in entries if entry.mtime_ns < settled]
        if self.path is None or not kept:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            end = whole_end(file)
            file.truncate(end)  # drops a torn block, or the content of another version
            file.writelines([*([HEADER] if end == 0 else []), *self.block(kept)])

    def block(self, entries: Sequence[Entry]) -> list[bytes | memoryview]:
        """The bytes of a block, in parts."""
        texts: list[bytes | memoryview] = []
        lengths: list[int] = []
        written: set[str] = set()
        for entry in entries:
            fresh = entry.sha256 not in self.texts and entry.sha256 not in written
            written.add(entry.sha256)
            lengths.append(len(entry.text) if fresh else 0)
            texts += [entry.text] if fresh else []
        *values, _ = zip(*entries, strict=True)
        columns = msgspec.msgpack.encode(Columns(*[*map(list, values), lengths]))
        return [BLOCK.pack(len(columns), sum(lengths), zlib.crc32(columns)), columns, *texts]


def mapped(path: Path) -> memoryview:
    """The bytes of a file, mapped into memory."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)) if size else memoryview(b"")


def blocks(content: memoryview, start: int) -> Iterator[tuple[Columns, memoryview]]:
    """The whole blocks of a store from an offset on, each with its texts, up to the first damaged block."""
    while start + BLOCK.size <= len(content):
        columns_bytes, texts_bytes, checksum = BLOCK.unpack(content[start : start + BLOCK.size])
        texts_at = start + BLOCK.size + columns_bytes
        end = texts_at + texts_bytes
        columns = content[start + BLOCK.size : texts_at]
        if end > len(content) or zlib.crc32(columns) != checksum:
            return
        try:
            yield COLUMNS.decode(columns), content[texts_at:end]
        except msgspec.DecodeError:
            return
        start = end


def whole_end(file: BinaryIO) -> int:
    """The offset of the end of the last whole block; 0 for a file that is not a store."""
    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    end = len(HEADER) if file.read(len(HEADER)) == HEADER else 0
    while end:
        file.seek(end)
        head = file.read(BLOCK.size)
        if len(head) < BLOCK.size:
            break
        columns_bytes, texts_bytes, _ = BLOCK.unpack(head)
        if end + BLOCK.size + columns_bytes + texts_bytes > size:
            break
        end += BLOCK.size + columns_bytes + texts_bytes
    return end
