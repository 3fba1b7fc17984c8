"""Loads plug-ins: a file or folder that a grid names, an installed package, or the copy of either in a run folder."""

import ast
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from models.plugins.content import INIT, Files, PluginError, digest_of, files_of, write_files
from models.plugins.installed import installed_rows, package_path
from models.plugins.modules import Source, import_plugin, import_within, shown_path
from models.plugins.tables import TABLES, Plugin, Rows, add_rows, unchanged_tables
from models.text import did_you_mean

DIGITS: Final = 12  # of a digest, in the names of modules and folders
DESCRIPTION: Final = "plugin.json"  # of a copy


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A plug-in whose rows are in the tables, and the files that they were made from."""

    plugin: Plugin
    files: Files


def load_file(path: Path) -> Loaded:
    """The plug-in in a file or a package's folder, with its rows added to the tables. PluginError."""
    path = path.absolute()
    files = files_of(path)
    sha256 = digest_of(files)
    return _loaded(Plugin(name=path.name, module=f"vssm_bench_plugin_{sha256[:DIGITS]}", path=path, sha256=sha256), files)


def load_installed(package: str) -> Loaded:
    """An installed package, with every row that its metadata name added to the tables. PluginError."""
    rows = [row for row in installed_rows() if row.package == package]
    named = tuple((row.table, row.name, row.target) for row in rows)
    path = package_path(package)
    files = files_of(path)
    return _loaded(Plugin(name=rows[0].distribution, module=package, path=path, sha256=digest_of(files, named), rows=named), files)


def write_copy(loaded: Loaded, parent: Path) -> Path:
    """The folder in `parent` with a copy of a plug-in, named by its content. It appears whole; a copy that was damaged is written again."""
    plugin, folder = loaded.plugin, parent / loaded.plugin.sha256[:DIGITS]
    try:
        read_copy(folder, plugin.sha256)
        return folder
    except PluginError:
        parent.mkdir(parents=True, exist_ok=True)
    aside = parent / f".{folder.name}-{os.getpid()}"
    shutil.rmtree(aside, ignore_errors=True)
    write_files(loaded.files, aside / plugin.path.name)
    description = {"name": plugin.name, "module": plugin.module, "file": plugin.path.name, "sha256": plugin.sha256, "rows": plugin.rows}
    (aside / DESCRIPTION).write_text(json.dumps(description, indent=1), encoding="utf-8")
    if folder.exists():
        folder.rename(aside / "damaged")
    aside.rename(folder)
    return folder


def read_copy(folder: Path, sha256: str) -> Loaded:
    """A plug-in as it lies in a run folder; nothing is imported. PluginError if it is not there, or not what was launched."""
    try:
        description = json.loads((folder / DESCRIPTION).read_bytes())
        name, module, file = (str(description[key]) for key in ("name", "module", "file"))
        rows = tuple((str(table), str(row), str(target)) for table, row, target in description["rows"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PluginError(f"the copy of a plug-in, {folder}, cannot be read ({error}): launch the grid again to write it anew") from error
    files = files_of(folder / file)
    if digest_of(files, rows) != sha256:
        raise PluginError(f"{folder / file} is not the plug-in {name} that was launched: it was changed. Launch the grid again to write it anew")
    return Loaded(plugin=Plugin(name=name, module=module, path=(folder / file).absolute(), sha256=sha256, rows=rows), files=files)


def load_copy(folder: Path, sha256: str) -> Plugin:
    """The plug-in in a run folder, with its rows added to the tables. PluginError."""
    copy = read_copy(folder, sha256)
    return _loaded(copy.plugin, copy.files).plugin


def _loaded(plugin: Plugin, files: Files) -> Loaded:
    """A plug-in that is imported and whose rows are in the tables."""
    source = Source(files=files, path=plugin.path)
    with unchanged_tables(shown_path(plugin.path)):
        module = import_plugin(plugin.module, source)
        named = named_rows(plugin, source)
    rows = named if plugin.rows else dictionaries(plugin, vars(module))
    entry = files.get("", files.get(INIT, b""))
    add_rows(plugin, rows, lambda table, name: f"{shown_path(plugin.path)}{_line(plugin, entry, TABLES[table].dictionary, name)}")
    return Loaded(plugin=plugin, files=files)


def dictionaries(plugin: Plugin, names: Mapping[str, Any]) -> Rows:
    """The rows in the dictionaries of a plug-in's module. PluginError if it has none."""
    rows: dict[str, Mapping[str, Any]] = {}
    for key, table in TABLES.items():
        given = names.get(table.dictionary, {})
        if given is table.rows:  # imported, to look something up in
            continue
        if not isinstance(given, Mapping):
            raise PluginError(
                f"{plugin.path}: {table.dictionary} must be a dictionary from names to rows, got a value of type {type(given).__name__}"
            )
        rows[key] = given
    if not any(rows.values()):
        valid = [table.dictionary for table in TABLES.values()]
        near = next((hint for name in names if not name.startswith("_") and (hint := did_you_mean(name.upper(), valid))), "")
        raise PluginError(f"{shown_path(plugin.path)}: it adds nothing: a plug-in has one or more dictionaries of its own: {', '.join(valid)}{near}")
    return rows


def named_rows(plugin: Plugin, source: Source) -> Rows:
    """The rows that a package's metadata name."""
    rows: dict[str, dict[str, Any]] = {key: {} for key in TABLES}
    for table, name, target in plugin.rows:
        if table not in TABLES:
            raise PluginError(
                f"{plugin.name}: unknown group of entry points 'vssm_bench.{table}'{did_you_mean(table, TABLES)}; valid: {', '.join(TABLES)}"
            )
        module, _, path = target.partition(":")
        value: Any = import_within(module.strip(), source)
        for attribute in filter(None, path.strip().split(".")):
            if not hasattr(value, attribute):
                raise PluginError(f"{plugin.name}: its entry point {name} = {target} names nothing: {module} has no {path.strip()}")
            value = getattr(value, attribute)
        rows[table][name] = value
    return rows


def _line(plugin: Plugin, content: bytes, dictionary: str, name: str) -> str:
    """':12', the line of a row in a plug-in's file; the dictionary's line if the row is not written out, and empty if that is not either."""
    if plugin.rows:
        return ""
    for node in ast.parse(content).body:
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0] if isinstance(node, ast.Assign) else None
        if isinstance(target, ast.Name) and target.id == dictionary:
            keys = node.value.keys if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict) else []
            lines = [key.lineno for key in keys if isinstance(key, ast.Constant) and key.value == name]
            return f":{(lines or [node.lineno])[0]}"
    return ""
