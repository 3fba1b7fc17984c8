"""Plug-ins in jobs and records: the copies in a run folder, which jobs load, and what a cell's JSON form says of the plug-ins that it uses.

Sources of data are rows that plug-ins may add here; models and pruning methods are those of `models.plugins`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NotRequired, TypedDict

from jobs.experiment.sources import SOURCES, SourceEntry
from models.plugins.loading import DIGITS, load_copy
from models.plugins.rows import options_problem
from models.plugins.tables import TABLES, Table, forget_rows, origin

if TYPE_CHECKING:  # it imports pydantic, which a reader of grids does not need
    from jobs.experiment.run_folder import RunFolder

NAME, SHA256 = "plugin", "plugin_sha256"  # fields of a part of a cell's JSON form; the content decides a result, the name does not
CHAIN: Final = "methods"  # the knob of a chain that lists its methods
PARTS: Final = {"model": ("models", "name"), "pruning": ("pruning", "method"), "data": ("data", "source")}  # part -> table, field with the row's name


@dataclass(frozen=True, kw_only=True)
class PluginCopy:
    """A plug-in in a run folder. Whoever unpickles it has loaded the plug-in: a job holds its copies before anything that needs them."""

    folder: str
    sha256: str

    def __reduce__(self) -> tuple[Callable[[str, str], "PluginCopy"], tuple[str, str]]:
        """How it is pickled."""
        return loaded_copy, (self.folder, self.sha256)


def loaded_copy(folder: str, sha256: str) -> PluginCopy:
    """The copy, once its rows are in the tables of this process. PluginError if it is not what was launched."""
    load_copy(Path(folder), sha256)
    return PluginCopy(folder=folder, sha256=sha256)


def copy_in(run: "RunFolder", sha256: str) -> PluginCopy:
    """The copy of a plug-in in a run folder, whether it is there yet or not."""
    return PluginCopy(folder=str(run.plugins_dir.resolve() / sha256[:DIGITS]), sha256=sha256)


def plugin_identity(part: str, name: str) -> dict[str, str]:
    """What the row of a part of a cell adds to its identity: the digest of its plug-in's content. Nothing for our own rows."""
    plugin = origin(PARTS[part][0], name)
    return {SHA256: plugin.sha256[:DIGITS]} if plugin else {}


class PluginJson(TypedDict):
    """What a part of a cell's JSON form says of the plug-in that its row came from."""

    plugin: NotRequired[str]  # its name
    plugin_sha256: NotRequired[str]


def plugin_json(part: str, name: str) -> PluginJson:
    """What a part of a cell's JSON form says of its plug-in: name and digest. Nothing for our own rows."""
    plugin = origin(PARTS[part][0], name)
    return {"plugin": plugin.name, "plugin_sha256": plugin.sha256} if plugin else {}


def without_plugin(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A part of a cell's JSON form without what it says of a plug-in."""
    return {name: value for name, value in fields.items() if name not in (NAME, SHA256)}


def without_plugin_names(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A cell's JSON form without the names of plug-ins, whose content alone decides a result."""
    return {part: _unnamed(fields) for part, fields in spec.items()}


def _unnamed(fields: Any) -> Any:
    if not isinstance(fields, Mapping):
        return fields
    kept, knobs = {name: value for name, value in fields.items() if name != NAME}, fields.get("knobs")
    if isinstance(knobs, Mapping) and CHAIN in knobs:
        kept["knobs"] = {**knobs, CHAIN: list(map(_unnamed, knobs[CHAIN]))}
    return kept


def rows_in(spec: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(table, name, fields) of every row that a cell's JSON form names, of every method of a chain too."""
    for part, (table, field) in PARTS.items():
        fields = spec.get(part)
        if not isinstance(fields, Mapping):
            continue
        yield table, str(fields.get(field)), fields
        knobs = fields.get("knobs")
        for link in knobs.get(CHAIN, ()) if isinstance(knobs, Mapping) else ():
            yield table, str(link.get(field)), link


def check_plugins(spec: Mapping[str, Any]) -> None:
    """Raises ValueError if a row of a cell's JSON form needs another plug-in, or another content of it, than those in the tables."""
    for table, name, fields in rows_in(spec):
        wanted, present = fields.get(SHA256), origin(table, name)
        if wanted != (present.sha256 if present else None):
            other = f"the plug-in {present.name} ({present.sha256[:DIGITS]})" if present else "no plug-in"
            needed = f"the plug-in {fields.get(NAME)} ({wanted[:DIGITS]})" if wanted else "no plug-in"
            raise ValueError(f"{TABLES[table].word} {name!r} is of {needed}, and {other} has it here")


def copies_for(run: "RunFolder", spec: Mapping[str, Any]) -> list[PluginCopy]:
    """The copies of the plug-ins that a cell's JSON form names."""
    return [copy_in(run, sha256) for sha256 in digests_of(spec)]


def load_copies(run: "RunFolder", spec: Mapping[str, Any]) -> None:
    """Loads the plug-ins that a cell's JSON form names from its run folder, and no others. PluginError."""
    forget_rows()
    for copy in copies_for(run, spec):
        load_copy(Path(copy.folder), copy.sha256)


def names_in(spec: Mapping[str, Any]) -> list[str]:
    """The names of the plug-ins that a cell's JSON form names."""
    return list(dict.fromkeys(str(fields.get(NAME)) for _, _, fields in rows_in(spec) if SHA256 in fields))


def digests_of(spec: Mapping[str, Any]) -> list[str]:
    """The digests of the plug-ins that a cell's JSON form names."""
    return list(dict.fromkeys(fields[SHA256] for _, _, fields in rows_in(spec) if isinstance(fields.get(SHA256), str)))


def source_problem(name: str, entry: Any) -> str | None:
    """What is wrong with a row of SOURCES of a plug-in."""
    if not isinstance(entry, SourceEntry):
        return f"expected a jobs.experiment.sources.SourceEntry, got a value of type {type(entry).__name__}"
    if type(entry.img_size) is not int or entry.img_size < 1:
        return f"img_size must be a whole number of pixels, got {entry.img_size!r}"
    missing = [part for part in ("problems", "identity", "read") if not callable(getattr(entry.reader, part, None))]
    if missing:
        return f"reader must be a jobs.data.content.Reader with the functions problems, identity and read; it has no {missing[0]}"
    if not (_is_channels(entry.mean) and _is_channels(entry.std)) or min(entry.std) <= 0:
        return f"mean and std must be three numbers each, std above 0, got {entry.mean!r} and {entry.std!r}"
    for field in ("path", "test_path"):
        if getattr(entry, field) not in (True, False, None):
            return f"{field} must be True (needed), False (refused) or None (taken), got {getattr(entry, field)!r}"
    return None if entry.options is None else options_problem("options", entry.options)


def _is_channels(value: Any) -> bool:
    return isinstance(value, tuple | list) and [isinstance(number, int | float) for number in value] == [True] * 3


TABLES["data"] = Table(dictionary="SOURCES", word="source of data", rows=SOURCES, problem=source_problem)
