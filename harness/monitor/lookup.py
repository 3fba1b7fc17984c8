"""The run folder, cell or stage that a user names."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from jobs.cluster.claims import is_claimed
from jobs.experiment.ids import CellId, StageId
from jobs.experiment.index import RunIndex, RunIndexError, read_index
from jobs.experiment.run_folder import RunFolder
from models.text import did_you_mean

LISTED = 6  # names that an error lists
TITLED = 8  # ids that an error lists with their titles


class NameNotFound(ValueError):
    """Nothing has the name that was given; the message lists names that exist."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """The cell or stage that an id names: the other of the two is None."""

    run: RunFolder
    index: RunIndex
    cell: CellId | None
    stage: StageId | None


def find_run(given: str | None, runs: Path) -> RunFolder:
    """The run folder of a grid file, or at a path, or of that name; without a name the one at work, else the latest launch. Raises NameNotFound."""
    if given is None:
        return at_work_or_newest(runs)
    path = Path(given)
    if path.is_file():
        run = RunFolder(runs / grid_name(path))
        if not run.path.is_dir():
            raise NameNotFound(f"{path} was never launched: there is no {run.path}. Launch it with: python -m harness.launch {path}")
        return run
    for folder in (path, runs / given):
        if RunFolder(folder).index_path():
            return RunFolder(folder)
    names = [folder.name for folder in launched(runs)]
    raise NameNotFound(f"'{given}' is neither a grid file nor a run folder{did_you_mean(given, names) or listed(names, f'run folders under {runs}')}")


def is_run(given: str, runs: Path) -> bool:
    """True when a name is that of a file or folder, not the beginning of an id."""
    return Path(given).exists() or RunFolder(runs / given).index_path() is not None


def grid_name(path: Path) -> str:
    """The name in a grid file, whatever mistakes the rest of the file has: its run may be older than they are. Raises NameNotFound."""
    from harness.grid.labels import name_problem
    from harness.grid.yaml_source import GridError, Report, parse_yaml, read_text

    report = Report(str(path))
    try:
        root = parse_yaml(read_text(path), report).value
    except GridError as error:
        raise NameNotFound(str(error)) from error
    node = root.get("name") if isinstance(root, dict) else None
    if node is not None and not (problem := name_problem(node.value)):
        return str(node.value)
    if report.problems:
        raise NameNotFound(str(GridError(report.problems)))
    if node is None or not isinstance(node.value, str):
        raise NameNotFound(f"{path} has no 'name', and the run folder is named after it; add one, or name the run folder")
    raise NameNotFound(f"{path}:{node.line}: name: {problem}")


def launched(runs: Path) -> list[Path]:
    """The run folders under `runs`, the latest launch first."""
    folders = list(runs.iterdir()) if runs.is_dir() else []
    written = {folder: path.stat().st_mtime for folder in folders if (path := RunFolder(folder).index_path())}
    return sorted(written, key=written.__getitem__, reverse=True)


def at_work_or_newest(runs: Path) -> RunFolder:
    """The run folder in which a launch works now, else that of the latest launch. Raises NameNotFound."""
    folders = launched(runs)
    if not folders:
        raise NameNotFound(f"there is no run folder under {runs}. Launch a grid with: python -m harness.launch <grid.yaml>")
    return RunFolder(next((folder for folder in folders if is_claimed(RunFolder(folder).launch_lock)), folders[0]))


def find_id(prefix: str, runs: Path) -> Match:
    """The cell or stage whose id begins so; of several run folders, that of the latest launch. Raises NameNotFound for no id, and for several.

    A run folder whose index is damaged is left out, and named if no other has the id.
    """
    known: list[str] = []
    damaged: list[str] = []
    for folder in launched(runs):
        run = RunFolder(folder)
        try:
            index = read_index(run)
        except RunIndexError as error:
            damaged.append(f"\n  not searched: {error}")
            continue
        ids: list[str] = [*index.cells, *index.stages]
        matches = [prefix] if prefix in ids else [name for name in ids if name.startswith(prefix)]
        if len(matches) > 1:
            shown = "\n".join(f"  {name}  {title(index, name)}" for name in matches[:TITLED])
            raise NameNotFound(f"{len(matches)} ids of {folder} begin with '{prefix}'; give more letters:\n{shown}")
        if matches:
            cell, stage = CellId(matches[0]), StageId(matches[0])
            return Match(run=run, index=index, cell=cell if cell in index.cells else None, stage=stage if stage in index.stages else None)
        known += ids
    beginnings = dict.fromkeys(name[: len(prefix)] for name in known)
    raise NameNotFound(f"no cell or stage '{prefix}' under {runs}{did_you_mean(prefix, beginnings) or listed(known, 'ids')}{''.join(damaged)}")


def title(index: RunIndex, name: str) -> str:
    """A cell or stage in the words of the grid."""
    cell = index.cells.get(CellId(name))
    return f"cell  {cell.title}" if cell else f"stage  {index.stages[StageId(name)].title}"


def listed(names: Iterable[str], noun: str) -> str:
    """The end of an error: the first names that exist."""
    distinct = list(dict.fromkeys(names))
    return f"; {noun}: {', '.join(distinct[:LISTED])}{' ...' if len(distinct) > LISTED else ''}" if distinct else f"; there are no {noun}"
