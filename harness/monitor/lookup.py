"""Which run folder, cell or stage a user means."""

import difflib
from collections.abc import Iterable
from pathlib import Path

from harness.grid.yaml_source import GridError, read_yaml
from jobs.experiment.index import RunIndex, read_index
from jobs.experiment.run_folder import RunFolder

GRID = Path("grid.yaml")


class NameNotFound(ValueError):
    """Nothing fits what was named; the message says what would."""


def find_run(given: str | None, runs: Path) -> RunFolder:
    """The run folder of a grid file or of a path to it; without either that of ./grid.yaml, else the newest one. Raises NameNotFound."""
    if given is None:
        return RunFolder(runs / grid_name(GRID)) if GRID.is_file() and RunFolder(runs / grid_name(GRID)).index_path() else newest(runs)
    path = Path(given)
    if path.is_file():
        run = RunFolder(runs / grid_name(path))
        if not run.path.is_dir():
            raise NameNotFound(f"{path} was never launched: there is no {run.path}; python -m harness.launch {path} does")
        return run
    for folder in (path, runs / given):
        if RunFolder(folder).index_path():
            return RunFolder(folder)
    near = meant(given, [folder.name for folder in launched(runs)], f"run folders under {runs}")
    raise NameNotFound(f"'{given}' is no grid file and no run folder{near}")


def is_run(given: str, runs: Path) -> bool:
    """True when a name is that of a file or folder rather than the beginning of an id."""
    return Path(given).exists() or RunFolder(runs / given).index_path() is not None


def grid_name(path: Path) -> str:
    """What a grid file calls itself. Raises NameNotFound."""
    try:
        root = read_yaml(path)[1].value
    except GridError as error:
        raise NameNotFound(str(error)) from error
    node = root.get("name") if isinstance(root, dict) else None
    if node is None or not isinstance(node.value, str):
        raise NameNotFound(f"{path} has no 'name', after which its run folder is called")
    return node.value


def launched(runs: Path) -> list[Path]:
    """The run folders under `runs`, the one launched last first."""
    folders = list(runs.iterdir()) if runs.is_dir() else []
    written = {folder: path.stat().st_mtime for folder in folders if (path := RunFolder(folder).index_path())}
    return sorted(written, key=written.__getitem__, reverse=True)


def newest(runs: Path) -> RunFolder:
    """The run folder launched last. Raises NameNotFound."""
    found = launched(runs)
    if not found:
        raise NameNotFound(f"nothing was launched yet: no run folder under {runs}; python -m harness.launch <grid.yaml> makes one")
    return RunFolder(found[0])


def find_part(prefix: str, runs: Path) -> tuple[RunFolder, RunIndex, str]:
    """The run folder launched last that has a cell or stage beginning so, its index, and that id; NameNotFound where there is none, or several."""
    known: list[str] = []
    for folder in launched(runs):
        run = RunFolder(folder)
        index = read_index(run)
        ids = [*index.cells, *index.stages]
        found = [one for one in ids if one.startswith(prefix)]
        if len(found) == 1 or prefix in found:
            return run, index, prefix if prefix in found else found[0]
        if found:
            shown = "\n".join(f"  {one}  {title(index, one)}" for one in found[:8])
            raise NameNotFound(f"'{prefix}' begins {len(found)} ids of {folder}; give more letters:\n{shown}")
        known += ids
    raise NameNotFound(f"no cell or stage '{prefix}' under {runs}{meant(prefix, known, 'ids')}")


def title(index: RunIndex, part: str) -> str:
    """A cell or stage in the words of the grid."""
    return f"cell  {index.cells[part].title}" if part in index.cells else f"stage  {index.stages[part].title}"


def meant(given: str, known: Iterable[str], what: str) -> str:
    """The end of an error: the nearest names, or the first ones."""
    names = list(dict.fromkeys(known))
    close = difflib.get_close_matches(given, [name[: len(given)] for name in names] if what == "ids" else names, n=3, cutoff=0.5)
    near = [name for name in names if any(name.startswith(one) for one in close)][:3]
    if near:
        return f"; did you mean {' or '.join(near)}?"
    return f"; {what}: {', '.join(names[:6])}{' ...' if len(names) > 6 else ''}" if names else f"; there are no {what}"
