"""Rows of installed packages: entry points of the groups `vssm_bench.models`, `vssm_bench.pruning` and `vssm_bench.data`.

An entry point's name is the row's name, and its object the row. Nothing is imported here, and nothing is looked up until a grid names a row that is
not ours.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from models.plugins.content import INIT, PluginError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "vssm_bench"


@dataclass(frozen=True, kw_only=True)
class InstalledRow:
    """A row that a package's metadata name."""

    table: str
    name: str
    target: str  # 'package.module:object'
    distribution: str  # its name and version

    @property
    def package(self) -> str:
        """The top-level package or module."""
        return self.target.partition(":")[0].partition(".")[0].strip()


@cache
def installed_rows() -> tuple[InstalledRow, ...]:
    """All rows of all installed packages, those of one package together."""
    from importlib.metadata import distributions

    rows = {
        row: None
        for distribution in distributions()
        for point in distribution.entry_points
        if point.group.partition(".")[0] == GROUP
        for row in _rows(point, f"{distribution.name} {distribution.version}")
    }
    return tuple(sorted(rows, key=lambda row: (row.package, row.table, row.name)))


def _rows(point: "EntryPoint", distribution: str) -> Iterator[InstalledRow]:
    yield InstalledRow(table=point.group.partition(".")[2], name=point.name, target=point.value.strip(), distribution=distribution)


def installed_names(table: str) -> list[str]:
    """The names of a table's rows in installed packages."""
    return sorted({row.name for row in installed_rows() if row.table == table})


def package_with(table: str, name: str) -> str | None:
    """The package that has a row; None if none has. PluginError if several have."""
    owners = {row.package: row.distribution for row in installed_rows() if (row.table, row.name) == (table, name)}
    if len(owners) > 1:
        both = " and ".join(sorted(owners.values()))
        raise PluginError(f"{both} both have a row {name!r} of {GROUP}.{table}: uninstall one of them, or name its file under plugins")
    return next(iter(owners), None)


def package_path(package: str) -> Path:
    """The folder or file of an installed package, which is not imported. PluginError if it has none."""
    for finder in sys.meta_path:
        spec = finder.find_spec(package, None) if hasattr(finder, "find_spec") and type(finder).__name__ != "PluginFinder" else None
        if spec is None:
            continue
        if spec.origin is None or not spec.origin.endswith(".py"):
            raise PluginError(f"the installed package {package} has no {INIT}: a plug-in is a package with one, or a single Python file")
        path = Path(spec.origin)
        return path.parent if path.name == INIT else path
    raise PluginError(f"the package {package} is named by its metadata and cannot be imported: install it again")


def load_installed_row(table: str, name: str, problem: str) -> None:
    """Loads the installed package that has a row; for calls from Python, without a grid. ValueError with `problem` if none has it."""
    package = package_with(table, name)
    if package is None:
        raise ValueError(problem)
    from models.plugins.loading import load_installed

    load_installed(package)
