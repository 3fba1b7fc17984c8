"""The plug-ins of a grid: those that it names under `plugins`, and installed packages with a row that it names and we do not have.

Plug-ins are read before models, pruning methods and data, whose names they may add.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from harness.grid.methods import CHAIN
from harness.grid.paths import absolute_path, path_problem
from harness.grid.yaml_source import Node, Report
from jobs.experiment.plugins import PARTS
from models.plugins.content import PluginError
from models.plugins.installed import package_with
from models.plugins.loading import Loaded, load_file, load_installed
from models.plugins.tables import TABLES, forget_rows
from models.typed import shown

WORDS: Final = dict(PARTS.values())  # key of a grid -> the field that names a row


def read_plugins(keys: Mapping[str, Node], folder: Path, report: Report) -> list[Loaded] | None:
    """Every plug-in of a grid, with its rows in the tables; None if one of them cannot be used, which the report says.

    Rows of another grid's plug-ins are removed. Relative paths are looked for in `folder`, the grid's own, then in the current one.
    """
    forget_rows()
    before = len(report.problems)
    loaded = _named_plugins(keys.get("plugins"), folder, report)
    if len(report.problems) == before:
        loaded += _installed_plugins(keys, report)
    return loaded if len(report.problems) == before else None


def _named_plugins(node: Node | None, folder: Path, report: Report) -> list[Loaded]:
    """The plug-ins under `plugins:`, a path or a list of paths."""
    if node is None or node.value is None:
        return []
    loaded: list[Loaded] = []
    lines: dict[Path, int] = {}
    for item, key in [(item, f"plugins[{index}]") for index, item in enumerate(node.value)] if isinstance(node.value, list) else [(node, "plugins")]:
        if not isinstance(item.value, str) or not item.value:
            report.add(item.line, key, f"expected the path of a Python file or of a package's folder, got {shown(item.plain)}{item.remark}")
            continue
        if problem := path_problem(item.value):
            report.add(item.line, key, problem)
            continue
        path = absolute_path(item.value, folder)
        if (first := lines.setdefault(path.resolve(), item.line)) != item.line or path in [other.plugin.path for other in loaded]:
            report.add(item.line, key, f"{item.value} is given twice; first in line {first}")
            continue
        try:
            new = load_file(path)
        except PluginError as error:
            report.add(item.line, key, str(error))
            continue
        if same := [other.plugin.name for other in loaded if other.plugin.sha256 == new.plugin.sha256]:
            report.add(item.line, key, f"{item.value} has the same content as {same[0]}; name one of them")
        loaded.append(new)
    return loaded


def _installed_plugins(keys: Mapping[str, Node], report: Report) -> list[Loaded]:
    """The installed packages with rows that the grid names and no table has yet. Their metadata are looked up only if there is such a name."""
    packages: dict[str, Node] = {}
    loaded = []
    for key, word in WORDS.items():
        for node in row_names(keys[key], word) if key in keys else ():
            if node.value in TABLES[key].rows or "/" in str(node.value):  # ours, or timm's
                continue
            try:
                package = package_with(key, str(node.value))
                if package is not None and package not in packages:
                    packages[package] = node
                    loaded.append(load_installed(package))
            except PluginError as error:
                report.add(node.line, key, str(error))
    return loaded


def row_names(node: Node, word: str, bare: bool = True) -> Iterator[Node]:
    """The nodes that name rows: texts under `word` at any depth, and texts that stand for an entry."""
    if isinstance(node.value, dict):
        for key, child in node.value.items():
            yield from row_names(child, word, bare=key in (word, CHAIN))
    elif isinstance(node.value, list):
        for child in node.value:
            yield from row_names(child, word, bare)
    elif bare and isinstance(node.value, str):
        yield node
