"""Run folders -> records: validated, one record per cell, with conflicts reported. Files that cannot be read are listed with the reason."""

import gc
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from analysis.decoding import stored_record
from analysis.labels import Labels, labels_of_plan
from analysis.protocols import by_protocol
from analysis.store import Entry, File, Store
from analysis.validation import check_spec, read_entry, reason
from jobs.experiment.records import Record
from jobs.experiment.run_folder import PLAN

MANY = 10_000  # files; from this number on, several processes are faster


class AnalysisError(ValueError):
    """Raised when the analysis cannot be done. The message says why, and what to do."""


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A file that was skipped, and the reason."""

    path: Path
    reason: str


@dataclass(frozen=True, kw_only=True)
class Collected:
    """An entry for each cell and comparability key, the conflicts, and the skipped files."""

    entries: tuple[Entry, ...]
    conflicts: tuple[str, ...]  # different results of the same cell under the same key
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True, kw_only=True)
class Merged:
    """The content of all run folders."""

    records: tuple[Record, ...]
    planned: Mapping[str, Mapping[str, Any]]  # the spec of every cell in the plans of the run folders, by id
    conflicts: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    labels: Mapping[str, Labels] = field(default_factory=dict)  # of every planned cell, by id


def merge(runs: Sequence[Path], store: Path | None = None) -> Merged:
    """The records under `runs`. Raises AnalysisError if a folder is missing or holds no record at all.

    `store`: a file that keeps the records that were read, so that the next merge reads only new files.
    """
    collected = collect(runs, store)
    if not collected.entries:
        unread = "".join(f"\n  {file.path}: {file.reason}" for file in collected.skipped[:10])
        why = "none of these can be read" if unread else "no cell has ended there yet"
        raise AnalysisError(f"no readable record in {', '.join(map(str, runs))}: {why}{unread}")
    with no_collection():
        records = tuple(by_protocol(stored_record(entry.text) for entry in collected.entries))
    skipped = list(collected.skipped)
    specs, labels = planned(runs, skipped)
    return Merged(records=records, planned=specs, conflicts=collected.conflicts, skipped=tuple(skipped), labels=labels)


def collect(runs: Sequence[Path], store: Path | None) -> Collected:
    """The entries of the records under `runs`. Records in the store are not decoded. Raises AnalysisError for a folder that is not a run folder."""
    with no_collection():
        kept = Store(store)
        known, unread = kept.known(record_files(runs))
        read = read_all(unread)
        new = [result for result in read if isinstance(result, Entry)]
        kept.append(new)
        entries, conflicts = settle(known + new)
    return Collected(entries=tuple(entries), conflicts=tuple(conflicts), skipped=tuple(result for result in read if isinstance(result, Skipped)))


@contextmanager
def no_collection() -> Iterator[None]:
    """Pauses garbage collection. A hundred thousand records have no cycles, and the search for them would take most of the time."""
    paused = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if paused:
            gc.enable()


def read_all(files: Sequence[File]) -> list[Entry | Skipped]:
    """The entry of each file, or the reason why it was skipped, in the sequence of `files`. Many files are read by a process per core."""
    if len(files) < MANY:
        return read_some(files)
    parts = [files[i : i + 2000] for i in range(0, len(files), 2000)]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("spawn")) as pool:
        return [result for part in pool.map(read_some, parts) for result in part]


def read_some(files: Sequence[File]) -> list[Entry | Skipped]:
    """The entry of each file, or the reason why it was skipped, read by this process."""
    with no_collection():
        return [read_one(*file) for file in files]


def read_one(path: str, size: int, mtime_ns: int) -> Entry | Skipped:
    """The entry of a file, or the reason why it was skipped."""
    try:
        return read_entry(path, size, mtime_ns)
    except (OSError, ValueError) as error:
        return Skipped(path=Path(path), reason=reason(path, error))


def settle(entries: Iterable[Entry]) -> tuple[list[Entry], list[str]]:
    """(an entry for each cell and key, the conflicts).

    A cell that is done in any folder has not failed. Of two results the first to finish counts: a later run never replaces a number.
    """
    done: dict[tuple[str, str], Entry] = {}
    failed: dict[str, Entry] = {}
    conflicts: list[str] = []
    for entry in sorted(entries, key=lambda entry: (entry.finished, entry.path)):
        if entry.status == "failed":
            failed[entry.cell] = entry
            continue
        first = done.setdefault((entry.cell, entry.key), entry)
        if first.outcome != entry.outcome:
            conflicts.append(f"{first.path} has {first.outcome} and is kept; {entry.path} finished later and has {entry.outcome}, for the same cell")
    finished = {cell for cell, _ in done}
    return [*done.values(), *(entry for cell, entry in failed.items() if cell not in finished)], conflicts


def planned(runs: Sequence[Path], skipped: list[Skipped]) -> tuple[dict[str, dict[str, Any]], dict[str, Labels]]:
    """(the spec, the labels) of every cell in the plan.json of the runs, by id. The labels are those of the first run that has the cell.

    Adds a plan that cannot be read to `skipped`.
    """
    specs: dict[str, dict[str, Any]] = {}
    labels: dict[str, Labels] = {}
    for run in runs:
        path = run / PLAN
        try:
            cells = json.loads(path.read_bytes())["cells"]
            for spec in cells.values():
                check_spec(spec)
            specs |= {cell: {name: value for name, value in spec.items() if name != "stages"} for cell, spec in cells.items()}
            labels = labels_of_plan(run, cells) | labels
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            skipped.append(Skipped(path=path, reason=f"not a plan.json of a launch: {error!r}; missing cells are unknown"))
    return specs, labels


def record_files(runs: Sequence[Path]) -> Iterator[File]:
    """Path, size and time of change (ns) of every record.json, sorted by path. Raises AnalysisError for a folder that is not a run folder."""
    for run in sorted({run.resolve() for run in runs}):
        if not run.is_dir():
            raise AnalysisError(f"no such folder: {run}; give a run folder such as runs/<grid>, which `python -m harness.launch` makes")
        cells = run / "cells"
        if not cells.is_dir():
            inside = sorted(folder.parent.name for folder in run.glob("*/cells"))
            hint = f"; did you mean {run / inside[0]}?" if inside else ": its first cell has not ended, or it is not a run folder"
            raise AnalysisError(f"{run} has no folder 'cells'{hint}")
        for name in sorted(os.listdir(cells)):
            path = f"{cells}/{name}/record.json"
            try:
                status = os.stat(path)
            except (FileNotFoundError, NotADirectoryError):
                continue  # a cell that has not ended
            yield path, status.st_size, status.st_mtime_ns
