"""The content of a plug-in: its files as bytes, and the digest that identifies them."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from models.text import did_you_mean

Files = Mapping[str, bytes]  # by name within the package, parts joined by '/'; of a plug-in that is one file: by the empty name

INIT: Final = "__init__.py"
MOST_FILES, MOST_BYTES = 2_000, 64 << 20  # of a plug-in, since every run folder keeps a copy


class PluginError(ValueError):
    """A plug-in cannot be used. The message names its file, the line where there is one, and the remedy."""


def files_of(path: Path) -> Files:
    """Every file of a plug-in: a Python file, or the folder of a package without its caches and hidden files. PluginError if it is neither."""
    try:
        if path.is_dir():
            return package_files(path)
        if not path.exists():
            raise PluginError(f"there is no file {path}{did_you_mean(path.name, _names_beside(path))}")
        if path.suffix != ".py" or not path.is_file():
            raise PluginError(f"{path} is no plug-in: give a Python file (.py), or a folder with {INIT}")
        if path.stat().st_size > MOST_BYTES:
            raise too_large(path)
        return {"": path.read_bytes()}
    except OSError as error:
        raise PluginError(f"{path} cannot be read: {error.strerror or error}") from error


def package_files(folder: Path) -> Files:
    """Every file of a package. PluginError if it is none, too large, or holds what is neither a file nor a folder of its own."""
    if not (folder / INIT).is_file():
        raise PluginError(f"{folder} is no package: it has no {INIT}; add one, or name a file in it")
    files: dict[str, bytes] = {}
    size = 0
    for path in package_paths(folder):
        size += path.stat().st_size
        if size > MOST_BYTES or len(files) == MOST_FILES:
            raise too_large(folder)
        files[path.relative_to(folder).as_posix()] = path.read_bytes()
    return files


def too_large(path: Path) -> PluginError:
    """Why a plug-in of this size is refused."""
    most = f"a plug-in may have {MOST_FILES:,} files and {MOST_BYTES >> 20} MiB, since every run folder keeps a copy"
    return PluginError(f"{path} is too large: {most}; keep data and weights elsewhere")


def package_paths(folder: Path) -> Iterator[Path]:
    """The files of a package, without caches and hidden files. A link to a file counts as the file."""
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(".") or entry.name == "__pycache__" or entry.suffix == ".pyc":
            continue
        if entry.is_dir() and not entry.is_symlink():
            yield from package_paths(entry)
        elif entry.is_file():
            yield entry
        else:
            raise PluginError(f"{entry}: a plug-in has files and folders of its own, and no link to a folder or to nothing: copy it, or remove it")


def digest_of(files: Files, rows: Sequence[Sequence[str]] = ()) -> str:
    """The SHA-256 of a plug-in: of its files with their names, and of the rows that a package's metadata name. Its own name decides nothing."""
    content = [[name, hashlib.sha256(files[name]).hexdigest()] for name in sorted(files)]
    return hashlib.sha256(json.dumps([content, sorted(map(list, rows))]).encode()).hexdigest()


def write_files(files: Files, path: Path) -> None:
    """Writes a plug-in's files to `path`, which becomes a file or a folder."""
    for name, content in files.items():
        target = path / name if name else path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def _names_beside(path: Path) -> list[str]:
    try:
        return [name for name in os.listdir(path.parent) if name.endswith(".py") or (path.parent / name / INIT).is_file()]
    except OSError:
        return []
