"""Text files that a reader never sees half-written."""

import os
from pathlib import Path


def write_text(path: Path, text: str) -> Path:
    """`path`, which holds `text` whole, or what it held before. Makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text(text, encoding="utf-8", newline="")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return path
