"""Digests of large files, remembered in the cache for as long as a file's path, size and time of change stay."""

import hashlib
import json
from pathlib import Path
from typing import Any, Final

from jobs.experiment.files import write_json

ALWAYS_HASHED_BYTES: Final = 256 << 20  # a larger file is hashed once; after that, its size and time of change identify it


def memory_file(path: Path, cache: Path) -> Path:
    """Where the digest of a file is remembered."""
    return cache / "hashed" / f"{hashlib.sha256(str(path).encode(errors='surrogateescape')).hexdigest()[:16]}.json"


def remembered_sha256(path: Path, size: int, mtime_ns: int, cache: Path) -> str | None:
    """The remembered digest of a file; None where there is none, where it is of another size or time, or where it cannot be read."""
    try:
        known = json.loads(memory_file(path, cache).read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(known, dict) or {key: known.get(key) for key in ("path", "size", "mtime_ns")} != _state(path, size, mtime_ns):
        return None
    digest = known.get("sha256")
    return digest if isinstance(digest, str) else None


def remember_sha256(path: Path, size: int, mtime_ns: int, cache: Path, digest: str) -> None:
    """Remembers a digest. Raises OSError if the cache cannot be written."""
    write_json(memory_file(path, cache), {**_state(path, size, mtime_ns), "sha256": digest})


def _state(path: Path, size: int, mtime_ns: int) -> dict[str, Any]:
    return {"path": str(path).encode(errors="surrogateescape").decode(errors="backslashreplace"), "size": size, "mtime_ns": mtime_ns}
