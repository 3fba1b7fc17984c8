"""Files that a reader or a kill never sees half-written. Stdlib alone."""

import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; synced and renamed to `path` when the block ends well, removed when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    os.close(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))  # as the umask has it: a group that shares the folder goes on with it
    mode = aside.stat().st_mode
    try:
        yield aside
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        aside.chmod(mode)  # safetensors puts a private file in its place
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Writes `value` whole or not at all. OSError names the path."""
    with written_aside(path) as aside:
        aside.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> Path:
    """Writes `text` in UTF-8, as it stands, whole or not at all; returns `path`. OSError names the path."""
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8", newline="")
    return path
