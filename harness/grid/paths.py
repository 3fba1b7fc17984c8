"""Paths in a grid, which are relative to its folder or to the current one."""

from collections.abc import Iterable
from pathlib import Path


def absolute_path(path: str, folder: Path) -> Path:
    """Where a path of a grid leads: from `folder`, the grid's own, if something is there; else from the current folder. `~` is expanded.

    Of a pattern such as train-{00..31}.tar, the folder that it is in counts.
    """
    given = expanded(path)
    beside = folder / given
    there = beside.parent if set("{*?") & set(beside.name) else beside
    return (beside if there.exists() else given).absolute()


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
