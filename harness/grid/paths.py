"""Paths in a grid, which are relative to its folder or to the current one."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

MOST_BYTES, MOST_NAME_BYTES = 4000, 255  # the system's, with room for the grid's folder


def path_problem(path: str) -> str | None:
    """Why a text cannot be the path of a file or folder; None if it can."""
    if "\0" in path:
        return "must have no character U+0000, which no path can have; remove it"
    encoded = os.fsencode(path)
    if len(encoded) > MOST_BYTES or max(map(len, encoded.split(b"/"))) > MOST_NAME_BYTES:
        return f"is too long for a path ({len(encoded)} bytes): at most {MOST_BYTES}, and {MOST_NAME_BYTES} between two slashes"
    if re.match("[a-z][a-z0-9+.-]*://", path):
        return f"must be the path of a file here, got the address {path}: nothing is downloaded, so fetch it first"
    return None


def absolute_path(path: str, folder: Path) -> Path:
    """Where a path of a grid leads: from `folder`, the grid's own, if something is there; else from the current folder. `~` is expanded.

    Of a pattern such as train-{00..31}.tar, the folder that it is in counts.
    """
    given = expanded(path)
    beside = folder / given
    there = beside.parent if set("{*?") & set(beside.name) else beside
    try:
        return (beside if there.exists() else given).absolute()
    except OSError:  # too long, or in a folder that is closed to us
        return given.absolute()


def expanded(path: str) -> Path:
    """A path with `~` expanded. Where the system knows no such home folder, it stays: then nothing is there, which is told with the path."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def short_names(paths: Iterable[Path]) -> dict[Path, str]:
    """Each path by its last parts, as many as tell it from the others: a name, and the folders above where two files have the same name."""
    every = list(dict.fromkeys(paths))
    return {path: next(name for name in _endings(path) if sum(_ends_with(other, name) for other in every) == 1) for path in every}


def _endings(path: Path) -> list[str]:
    """The last part of a path, the last two, and so on; the whole path at the end."""
    parts = path.parts
    return ["/".join(parts[-count:]) for count in range(1, len(parts))] + [str(path)]


def _ends_with(path: Path, ending: str) -> bool:
    return f"/{path}".endswith(f"/{ending}") or str(path) == ending
