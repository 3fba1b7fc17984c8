"""Small grids as text, and what they stand for."""

from pathlib import Path

import pytest

from harness.grid.read import Grid, read_grid
from harness.grid.yaml_source import GridError

START = "name: t\nmodels: [vim_micro]\npruning: [dense]\nseeds: [0]\n"  # lines 1 to 4


def read(text: str) -> Grid:
    """The grid written in `text`, in a file called grid.yaml of the current folder."""
    Path("grid.yaml").write_text(text)
    return read_grid(Path("grid.yaml"))


def mistakes(text: str) -> list[str]:
    """The lines of the error that `text` gives."""
    with pytest.raises(GridError) as caught:
        read(text)
    return str(caught.value).splitlines()


def labels(grid: Grid) -> list[tuple[str, str, int]]:
    return [(cell.model.label, cell.pruning, cell.seed) for cell in grid.cells]


def prunings(entry: str) -> list[str]:
    """Labels of the methods that an entry of `pruning:` expands to."""
    return [cell.pruning for cell in read(f"name: t\nmodels: [vim_micro]\nseeds: [0]\npruning: {entry}\n").cells]


def options(entry: str) -> list[dict[str, object]]:
    """Options of the models that an entry of `models:` expands to."""
    return [dict(cell.model.options) for cell in read(f"name: t\npruning: [dense]\nseeds: [0]\nmodels: {entry}\n").cells]
