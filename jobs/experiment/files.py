"""Files that are written whole or not at all, whoever reads or kills meanwhile. Standard library only."""

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
    """A new file beside `path` to write to. When the block ends, it is synced and renamed to `path`; when the block fails, it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    os.close(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))  # mode by the umask, so that a group that shares the folder can read it
    mode = aside.stat().st_mode
    try:
        yield aside
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        aside.chmod(mode)  # safetensors replaces it by a file that only its owner can read
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as JSON, whole or not at all. OSError names the path."""
    with written_aside(path) as aside:
        aside.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> Path:
    """`path`, to which `text` is written unchanged in UTF-8, whole or not at all. OSError names the path."""
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8", newline="")
    return path
