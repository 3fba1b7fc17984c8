"""Which run folder, cell or stage a user means."""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path

from harness.grid.yaml_source import GridError, read_yaml
from harness.plan.forest import FILE, Forest, read_forest
from harness.records import RunFolder

GRID = Path("grid.yaml")


class PlaceError(ValueError):
    """Nothing fits what was named; the message says what would."""


def find_run(given: str | None, runs: Path) -> RunFolder:
    """The run folder of a grid file or of a path to it; without either that of ./grid.yaml, else the newest one. Raises PlaceError."""
    if given is None:
        return RunFolder(runs / grid_name(GRID)) if GRID.is_file() and (runs / grid_name(GRID) / FILE).exists() else newest(runs)
    path = Path(given)
    if path.is_file():
        run = RunFolder(runs / grid_name(path))
        if not run.path.is_dir():
            raise PlaceError(f"{path} was never launched: there is no {run.path}; python -m harness.launch {path} does")
        return run
    for folder in (path, runs / given):
        if (folder / FILE).exists():
            return RunFolder(folder)
    near = meant(given, [folder.name for folder in launched(runs)], f"run folders under {runs}")
    raise PlaceError(f"'{given}' is no grid file and no run folder{near}")


def is_run(given: str, runs: Path) -> bool:
    """True when a name is that of a file or folder rather than the beginning of an id."""
    return Path(given).exists() or (runs / given / FILE).exists()


def grid_name(path: Path) -> str:
    """What a grid file calls itself. Raises PlaceError."""
    try:
        root = read_yaml(path)[1].value
    except GridError as error:
        raise PlaceError(str(error)) from error
    node = root.get("name") if isinstance(root, dict) else None
    if node is None or not isinstance(node.value, str):
        raise PlaceError(f"{path} has no 'name', after which its run folder is called")
    return node.value


def launched(runs: Path) -> list[Path]:
    """The run folders under `runs`, the one launched last first."""
    return sorted((path.parent for path in runs.glob(f"*/{FILE}")), key=lambda path: (path / FILE).stat().st_mtime, reverse=True)


def newest(runs: Path) -> RunFolder:
    """The run folder launched last. Raises PlaceError."""
    found = launched(runs)
    if not found:
        raise PlaceError(f"nothing was launched yet: no run folder under {runs}; python -m harness.launch <grid.yaml> makes one")
    return RunFolder(found[0])


def find_part(prefix: str, runs: Path) -> tuple[RunFolder, Forest, str]:
    """The run folder launched last that has a cell or stage beginning so, its forest, and that id; PlaceError where there is none, or several."""
    known: list[str] = []
    for folder in launched(runs):
        run = RunFolder(folder)
        forest = read_forest(run)
        ids = [*forest.cells, *forest.stages]
        found = [one for one in ids if one.startswith(prefix)]
        if len(found) == 1 or prefix in found:
            return run, forest, prefix if prefix in found else found[0]
        if found:
            shown = "\n".join(f"  {one}  {title(forest, one)}" for one in found[:8])
            raise PlaceError(f"'{prefix}' begins {len(found)} ids of {folder}; give more letters:\n{shown}")
        known += ids
    raise PlaceError(f"no cell or stage '{prefix}' under {runs}{meant(prefix, known, 'ids')}")


def title(forest: Forest, part: str) -> str:
    """A cell or stage in the words of the grid."""
    names: Mapping[str, tuple[str, object]] = forest.cells if part in forest.cells else forest.stages
    kind = "cell" if part in forest.cells else "stage"
    return f"{kind}  {names[part][0]}"


def meant(given: str, known: Iterable[str], what: str) -> str:
    """The end of an error: the nearest names, or the first ones."""
    names = list(dict.fromkeys(known))
    close = difflib.get_close_matches(given, [name[: len(given)] for name in names] if what == "ids" else names, n=3, cutoff=0.5)
    near = [name for name in names if any(name.startswith(one) for one in close)][:3]
    if near:
        return f"; did you mean {' or '.join(near)}?"
    return f"; {what}: {', '.join(names[:6])}{' ...' if len(names) > 6 else ''}" if names else f"; there are no {what}"
