"""An append-only file of what merges have read, so that the next one reads what is new alone.

A line a record: size and time of its file, its SHA-256, what tells cells apart, and the record itself. The same content at
another place is kept once. The store is derived: without it, or with a damaged line, the files are read again.
"""

import fcntl
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from harness.records import SCHEMA

HEADER = f"vssm-bench records, store 1, schema {SCHEMA}\n".encode()
SETTLING_NS = 2_000_000_000  # a file changed so recently might change again within one tick of its clock: it is read again next time


class Entry(NamedTuple):
    """A record file and what it says."""

    path: str  # absolute
    size: int
    mtime_ns: int
    sha256: str
    cell: str  # equal for runs of one cell
    key: str  # digest of the comparability key
    status: str
    finished: str
    outcome: str
    text: bytes


class Store:
    """The entries of a store file; later lines replace earlier ones of the same path. None: nothing is known and nothing kept."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.lines: dict[str, list[bytes]] = {}
        self.contents: dict[bytes, list[bytes]] = {}
        content = path.read_bytes() if path and path.exists() else b""
        self.separator = b"" if content.endswith(b"\n") else b"\n"  # behind a line that a kill tore
        self.readable = content.startswith(HEADER)
        if self.readable:
            self.read(content)

    def read(self, content: bytes) -> None:
        """Takes in every whole line."""
        for line in content.split(b"\n")[1:-1]:
            fields = line.split(b"\t", 10)
            if len(fields) == 11 and fields[9] == b"%d" % len(fields[10]):  # else a kill tore it
                self.lines[os.fsdecode(fields[0])] = fields
                if fields[10]:
                    self.contents[fields[3]] = fields

    def known(self, path: str, size: int, mtime_ns: int) -> Entry | None:
        """The entry of a file that has not changed since it was read."""
        fields = self.lines.get(path)
        if fields is None or fields[1] != b"%d" % size or fields[2] != b"%d" % mtime_ns:
            return None
        whole = self.contents.get(fields[3])
        if whole is None:
            return None
        sha256, cell, key, status, finished, outcome = map(os.fsdecode, whole[3:9])
        return Entry(path, size, mtime_ns, sha256, cell, key, status, finished, outcome, whole[10])

    def append(self, entries: Sequence[Entry]) -> None:
        """Adds entries; the record of a content that is there already is not written again. Merges at the same time take turns."""
        if self.path is None or not entries:
            return
        settled = time.time_ns() - SETTLING_NS
        lines = b"".join(self.line(entry) for entry in entries if entry.mtime_ns < settled)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not self.readable:
                file.truncate(0)
            empty = os.fstat(file.fileno()).st_size == 0
            file.write((HEADER if empty else self.separator) + lines)

    def line(self, entry: Entry) -> bytes:
        """The line of an entry, empty where a field holds a separator."""
        text = b"" if entry.sha256.encode() in self.contents else entry.text
        fields = [os.fsencode(str(field)) for field in entry[:9]] + [b"%d" % len(text), text]
        if any(b"\t" in field or b"\n" in field for field in fields):
            return b""
        self.contents[entry.sha256.encode()] = fields
        return b"\t".join(fields) + b"\n"
