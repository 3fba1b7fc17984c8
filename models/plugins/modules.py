"""Imports plug-ins from the bytes that were hashed, so that what runs is what the digest identifies, whatever becomes of the file meanwhile."""

import importlib
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.abc import MetaPathFinder, SourceLoader
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Final

from models.plugins.content import INIT, Files, PluginError

SLOW_S: Final = 20.0  # after which a message says where an import is


@dataclass(frozen=True, kw_only=True)
class Source:
    """A plug-in as the importer serves it: files, and the path where they were read."""

    files: Files
    path: Path

    def python(self, below: Sequence[str]) -> tuple[str, Path] | None:
        """(name, path) of the Python file of a module, given by its parts below the plug-in; None if there is no such file."""
        if not below and "" in self.files:
            return "", self.path
        stem = "/".join(below)
        names = [f"{stem}/{INIT}", f"{stem}.py"] if below else [INIT]
        name = next((name for name in names if name in self.files), None)
        return None if name is None else (name, self.path / name)


SOURCES: dict[str, Source] = {}  # by the name of the plug-in's module


class PluginLoader(SourceLoader):
    """Gives Python the source of one module."""

    def __init__(self, content: bytes, path: Path) -> None:
        self.content, self.path = content, path

    def get_filename(self, fullname: str) -> str:
        """The path that tracebacks name."""
        return str(self.path)

    def get_data(self, path: str | bytes) -> bytes:
        """The source; of any other path the file's content."""
        return self.content if str(path) == str(self.path) else Path(str(path)).read_bytes()


class PluginFinder(MetaPathFinder):
    """Finds the modules of plug-ins, before Python looks on its path. Compiled modules of a package are loaded from its folder."""

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The spec of a module, or None for all that is no plug-in's."""
        top, *below = fullname.split(".")
        source = SOURCES.get(top)
        if source is None:
            return None
        module = source.python(below)
        if module is None:
            return PathFinder.find_spec(fullname, [str(source.path.joinpath(*below[:-1]))]) if below else None
        name, file = module
        folders = [str(file.parent)] if file.name == INIT else None
        return spec_from_file_location(fullname, file, loader=PluginLoader(source.files[name], file), submodule_search_locations=folders)


FINDER: Final = PluginFinder()


def import_plugin(name: str, source: Source) -> ModuleType:
    """The module `name` of a plug-in. One of the same content that this process has imported already stays. Raises PluginError."""
    if name in sys.modules and name in SOURCES and SOURCES[name].files == source.files:
        return sys.modules[name]
    if name in sys.modules and name not in SOURCES:
        raise PluginError(f"the package {name} is in use already, so that its copy cannot take its place: keep the rows in a package of their own")
    forget_module(name)
    SOURCES[name] = source
    if FINDER not in sys.meta_path:
        sys.meta_path.insert(0, FINDER)
    try:
        return import_within(name, source)
    except PluginError:
        forget_module(name)
        raise


def import_within(name: str, source: Source) -> ModuleType:
    """A module of a plug-in whose source is registered. PluginError with file and line if that fails. What it prints goes to stderr."""
    try:
        with redirect_stdout(sys.stderr), slow_import_named(source.path):
            return importlib.import_module(name)
    except BaseException as error:  # of any kind: this is a user's code
        raise PluginError(f"{location(error, source)}: {explained(error, source)}") from error


def forget_module(name: str) -> None:
    """Removes a plug-in's modules, so that another content can be imported under its name."""
    SOURCES.pop(name, None)
    for module in [module for module in sys.modules if module == name or module.startswith(f"{name}.")]:
        del sys.modules[module]


def location(error: BaseException, source: Source) -> str:
    """'my_models.py:12': the last line of the plug-in on an error's way; the path alone if no line is known."""
    if isinstance(error, SyntaxError) and error.filename and within(error.filename, source.path):
        return f"{shown_path(Path(error.filename))}:{error.lineno or 1}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if within(frame.filename, source.path)]
    return f"{shown_path(Path(frames[-1].filename))}:{frames[-1].lineno}" if frames else shown_path(source.path)


def line_in_plugin(error: BaseException) -> str | None:
    """'my_models.py:12': the last line of any plug-in on an error's way; None if there is none."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if any(within(frame.filename, source.path) for source in SOURCES.values())]
    return f"{shown_path(Path(frames[-1].filename))}:{frames[-1].lineno}" if frames else None


def explained(error: BaseException, source: Source) -> str:
    """The kind of an error and its message in one line, with a remedy where there is a usual one."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted while the plug-in was imported"
    if isinstance(error, SystemExit):
        return "SystemExit: the plug-in ends the program when it is imported; it should only define things"
    message = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split()) or "no message"
    remedy = missing_remedy(error.name, source) if isinstance(error, ModuleNotFoundError) and error.name else ""
    return f"{type(error).__name__}: {message}{remedy}"


def missing_remedy(name: str, source: Source) -> str:
    """What to do about a module that is not there: it may lie beside the importing file, or be meant to lie in the plug-in."""
    top, _, within_it = name.partition(".")
    if top in SOURCES and within_it:
        return f"; the plug-in has no {within_it.replace('.', '/')}.py"
    if "" not in source.files and (top == source.path.name or f"{top}.py" in source.files or f"{top}/{INIT}" in source.files):
        return f"; within a plug-in, import relatively: from .{'' if top == source.path.name else top} import ..."
    if (source.path.parent / f"{top}.py").exists() or (source.path.parent / top).is_dir():
        return f"; a plug-in imports installed packages and its own files: put both files into a folder with {INIT}, and name that folder"
    return "; it is not installed here"


def within(file: str, path: Path) -> bool:
    """True if a file is the plug-in at `path`, or in it."""
    return Path(file) == path or path in Path(file).parents


def shown_path(path: Path) -> str:
    """A path as messages show it: from the current folder on, if it is there."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


@contextmanager
def slow_import_named(path: Path) -> Iterator[None]:
    """Says once on stderr at which line an import is that takes long, so that a plug-in that hangs can be told from a slow one."""
    thread = threading.get_ident()

    def tell() -> None:
        frames = [frame for frame in traceback.extract_stack(sys._current_frames().get(thread)) if within(frame.filename, path)]
        line = f":{frames[-1].lineno}" if frames else ""
        print(f"{shown_path(path)}{line}: still being imported after {SLOW_S:g} s; Ctrl-C ends it", file=sys.stderr, flush=True)

    timer = threading.Timer(SLOW_S, tell)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
