"""The tables that plug-ins add rows to, and which plug-in each added row came from."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.plugins.content import PluginError
from models.plugins.rows import method_problem, model_problem
from models.pruning.registry import METHODS
from models.registry import MODELS

Rows = Mapping[str, Mapping[str, Any]]  # by table, by name
Where = Callable[[str, str], str]  # from a table and a name to the file and line of the row, for messages


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """A plug-in whose rows are in the tables."""

    name: str  # as messages and records show it: my_models.py, or my-distribution 1.2
    module: str  # under which Python imports it
    path: Path  # of its file or folder
    sha256: str  # of its content
    rows: tuple[tuple[str, str, str], ...] = ()  # of an installed package: table, name and 'module:object' of each row; of a file none


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table and what a row of it must be."""

    dictionary: str  # its name within a plug-in
    word: str  # for one of its rows
    rows: dict[str, Any]
    problem: Callable[[str, Any], str | None]  # from a name and a row: what is wrong with it


TABLES: dict[str, Table] = {  # by the key of a grid; jobs.experiment.plugins adds `data`
    "models": Table(dictionary="MODELS", word="model", rows=MODELS, problem=model_problem),
    "pruning": Table(dictionary="METHODS", word="pruning method", rows=METHODS, problem=method_problem),
}
_origins: dict[tuple[str, str], Plugin] = {}  # by table and name


def origin(table: str, name: str) -> Plugin | None:
    """The plug-in that a row came from; None for our own rows."""
    return _origins.get((table, name))


def rows_of(plugin: Plugin) -> list[str]:
    """The rows of a plug-in in words: 'model small_cnn'."""
    return [f"{TABLES[table].word} {name}" for (table, name), owner in _origins.items() if owner is plugin]


def add_rows(plugin: Plugin, rows: Rows, where: Where) -> None:
    """Adds a plug-in's rows, all or none. PluginError for a name that is taken, and for a row that is none."""
    for key, given in rows.items():
        for name, row in given.items():
            if problem := name_problem(plugin, key, name) or _problem_of(TABLES[key], name, row):
                raise PluginError(f"{where(key, name)}: {TABLES[key].dictionary}[{name!r}]: {problem}")
    for key, given in rows.items():
        TABLES[key].rows.update(given)
        _origins.update({(key, name): plugin for name in given})


def name_problem(plugin: Plugin, key: str, name: object) -> str | None:
    """Why a row cannot have a name: it is no name, or it is taken. A row of the same plug-in is replaced."""
    if not isinstance(name, str) or not name or not name.replace("_", "a").replace("-", "a").replace(".", "a").isalnum() or not name.isascii():
        return "a name has letters, digits, '_', '-' and '.' alone"
    other = _origins.get((key, name))
    if name not in TABLES[key].rows or (other and other.sha256 == plugin.sha256):
        return None
    owner = other.name if other else "vssm-bench"
    return f"the name is taken: {owner} has a {TABLES[key].word} {name!r}; choose another"


def _problem_of(table: Table, name: str, row: Any) -> str | None:
    try:
        return table.problem(name, row)
    except Exception as error:  # a property of the user's class may raise any
        return f"{type(error).__name__}: {error}"


def forget_rows() -> None:
    """Removes the rows of all plug-ins: each grid has its own."""
    for key, name in _origins:
        TABLES[key].rows.pop(name, None)
    _origins.clear()


@contextmanager
def unchanged_tables(path: str) -> Iterator[None]:
    """Undoes what the block does to the tables themselves. PluginError if it did anything: a plug-in has dictionaries of its own."""
    before = {key: dict(table.rows) for key, table in TABLES.items()}
    try:
        yield
    finally:
        changed = [table.dictionary for key, table in TABLES.items() if table.rows != before[key]]
        for key, table in TABLES.items():
            table.rows.clear()
            table.rows.update(before[key])
    if changed:
        raise PluginError(f"{path}: it changes the table {changed[0]} of vssm-bench itself; write a dictionary {changed[0]} = {{...}} of its own")
