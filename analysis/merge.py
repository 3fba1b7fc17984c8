"""Run folders -> records: validated, one of each cell, conflicts told. What cannot be read is listed with the reason, and never ends the merge."""

import gc
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from analysis.decoding import stored_record
from analysis.store import Entry, File, Store
from analysis.validation import check_spec, read_entry, reason
from jobs.experiment.records import Record
from jobs.experiment.run_folder import PLAN

MANY = 10_000  # files from which starting processes pays


class AnalysisError(ValueError):
    """What was asked of the analysis cannot be done; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A file that is no record of ours, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, kw_only=True)
class Collected:
    """One entry of each cell and comparability key, and what had to be left out."""

    entries: tuple[Entry, ...]
    conflicts: tuple[str, ...]  # the same cell under the same key with different results
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What all run folders hold together."""

    records: tuple[Record, ...]
    planned: Mapping[str, Mapping[str, Any]]  # the spec of every cell that a grid asks for, by id; of run folders that have a plan
    conflicts: tuple[str, ...]
    skipped: tuple[Skipped, ...]


def merge(runs: Sequence[Path], store: Path | None = None) -> Merged:
    """The records under `runs`. Raises AnalysisError when a folder is missing or holds no record at all.

    `store`: a file in which what was read is kept, so that the next merge reads what is new alone.
    """
    collected = collect(runs, store)
    if not collected.entries:
        unread = "".join(f"\n  {one.path}: {one.reason}" for one in collected.skipped[:10])
        raise AnalysisError(f"no readable record in {', '.join(map(str, runs))}: no cell has ended there yet{unread}")
    with no_collection():
        records = tuple(stored_record(entry.text) for entry in collected.entries)
    skipped = list(collected.skipped)
    return Merged(records=records, planned=planned(runs, skipped), conflicts=collected.conflicts, skipped=tuple(skipped))


def collect(runs: Sequence[Path], store: Path | None) -> Collected:
    """What the records under `runs` say, without making objects of those that the store knows. Raises AnalysisError for what is no run folder."""
    with no_collection():
        kept = Store(store)
        found, unread = kept.known(record_files(runs))
        read = read_all(unread)
        new = [one for one in read if isinstance(one, Entry)]
        kept.append(new)
        entries, conflicts = settle(found + new)
    return Collected(entries=tuple(entries), conflicts=tuple(conflicts), skipped=tuple(one for one in read if isinstance(one, Skipped)))


@contextmanager
def no_collection() -> Iterator[None]:
    """Pauses the search for cycles: a hundred thousand records have none, and looking for them takes most of the time."""
    paused = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if paused:
            gc.enable()


def read_all(files: Sequence[File]) -> list[Entry | Skipped]:
    """What each file says, in their order. Many are read by as many processes as there are cores."""
    if len(files) < MANY:
        return read_some(files)
    parts = [files[i : i + 2000] for i in range(0, len(files), 2000)]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("spawn")) as pool:
        return [one for part in pool.map(read_some, parts) for one in part]


def read_some(files: Sequence[File]) -> list[Entry | Skipped]:
    """What each file says, one after the other."""
    with no_collection():
        return [read_one(*file) for file in files]


def read_one(path: str, size: int, mtime_ns: int) -> Entry | Skipped:
    """What a file says, or why it says nothing."""
    try:
        return read_entry(path, size, mtime_ns)
    except (OSError, ValueError) as error:
        return Skipped(path=Path(path), reason=reason(path, error))


def settle(found: Iterable[Entry]) -> tuple[list[Entry], list[str]]:
    """One entry of each cell and key, and what contradicts it.

    A cell that is done anywhere has not failed. Of two results the one that finished first stands: a later run never replaces a number.
    """
    done: dict[tuple[str, str], Entry] = {}
    failed: dict[str, Entry] = {}
    conflicts: list[str] = []
    for entry in sorted(found, key=lambda one: (one.finished, one.path)):
        if entry.status == "failed":
            failed[entry.cell] = entry
            continue
        first = done.setdefault((entry.cell, entry.key), entry)
        if first.outcome != entry.outcome:
            conflicts.append(f"{entry.path} has {entry.outcome}; {first.path} had {first.outcome} before, for the same cell, and is kept")
    finished = {cell for cell, _ in done}
    return [*done.values(), *(entry for cell, entry in failed.items() if cell not in finished)], conflicts


def planned(runs: Sequence[Path], skipped: list[Skipped]) -> dict[str, dict[str, Any]]:
    """The spec of every cell in the runs' plan.json, by id. A plan that cannot be read is added to `skipped`."""
    specs: dict[str, dict[str, Any]] = {}
    for path in (run / PLAN for run in runs):
        try:
            cells = json.loads(path.read_bytes())["cells"]
            for spec in cells.values():
                check_spec(spec)
            specs |= {cell: {name: value for name, value in spec.items() if name != "stages"} for cell, spec in cells.items()}
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            skipped.append(Skipped(path=path, reason=f"no plan of ours: {error!r}; holes are not known"))
    return specs


def record_files(runs: Sequence[Path]) -> Iterator[File]:
    """Path, size and time of change (ns) of every record.json, by path. Raises AnalysisError for what is no run folder."""
    for run in sorted({run.resolve() for run in runs}):
        if not run.is_dir():
            raise AnalysisError(f"no such folder: {run}; give a run folder such as runs/<grid>, which `python -m harness.launch` makes")
        cells = run / "cells"
        if not cells.is_dir():
            inside = sorted(one.parent.name for one in run.glob("*/cells"))
            hint = f"; did you mean {run / inside[0]}?" if inside else ": its first cell has not ended, or it is no run folder"
            raise AnalysisError(f"{run} has no folder 'cells'{hint}")
        for name in sorted(os.listdir(cells)):
            path = f"{cells}/{name}/record.json"
            try:
                status = os.stat(path)
            except (FileNotFoundError, NotADirectoryError):
                continue  # a cell that has not ended
            yield path, status.st_size, status.st_mtime_ns
