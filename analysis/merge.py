"""Run folders -> records. What cannot be read is listed with the reason, and never ends the merge."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from analysis.comparability import Key, key_of
from harness.records import SCHEMA, Record, read_record


class AnalysisError(ValueError):
    """What was asked of the analysis cannot be done; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A file that is no record of ours, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What all run folders hold together: one record of a cell and comparability key, and what had to be left out."""

    records: tuple[Record, ...]
    planned: Mapping[str, Mapping[str, Any]]  # the spec of every cell that a grid asks for, by id; of run folders that have a plan
    conflicts: tuple[str, ...]  # the same cell under the same key with different results
    skipped: tuple[Skipped, ...]


def merge(runs: Sequence[Path]) -> Merged:
    """The records under `runs`. Raises AnalysisError when a folder is missing or holds no record at all."""
    records: list[tuple[Path, Record]] = []
    skipped: list[Skipped] = []
    for path in sorted(set(record_files(runs))):
        try:
            records.append((path, checked(path, read_record(path))))
        except (OSError, ValueError) as error:
            skipped.append(Skipped(path=path, reason=reason(path, error)))
    if not records:
        unread = "".join(f"\n  {one.path}: {one.reason}" for one in skipped[:10])
        raise AnalysisError(f"no readable record in {', '.join(map(str, runs))}: no cell has ended there yet{unread}")
    kept, conflicts = settle(records)
    return Merged(records=tuple(kept), planned=planned(runs, skipped), conflicts=tuple(conflicts), skipped=tuple(skipped))


def settle(found: Iterable[tuple[Path, Record]]) -> tuple[list[Record], list[str]]:
    """One record of each cell and key, and what contradicts it.

    A cell that is done anywhere has not failed. Of two results the one that finished first stands: a later run never replaces a number.
    """
    done: dict[tuple[str, Key], tuple[Path, Record]] = {}
    failed: dict[str, Record] = {}
    conflicts: list[str] = []
    for path, record in sorted(found, key=lambda one: (one[1].finished, one[0])):
        if record.status == "failed":
            failed[record.id] = record
            continue
        first_path, first = done.setdefault((record.id, key_of(record)), (path, record))
        if result(first) != result(record):
            conflicts.append(f"cell {record.id}: {path} has {told(record)}, {first_path} had {told(first)} before and is kept")
    finished = {cell for cell, _ in done}
    return [record for _, record in done.values()] + [record for cell, record in failed.items() if cell not in finished], conflicts


def result(record: Record) -> tuple[object, ...]:
    """What two runs of a cell must agree in: the weights, where both say them, and what they scored."""
    assert record.metrics is not None
    return record.weights_sha256, record.metrics.top1, record.metrics.test_loss


def told(record: Record) -> str:
    """A result in words."""
    weights, top1, loss = result(record)
    return f"top1 {top1}, test loss {loss}, weights {str(weights)[:8]}"


def planned(runs: Sequence[Path], skipped: list[Skipped]) -> dict[str, dict[str, Any]]:
    """The spec of every cell in the runs' plan.json, by id. A plan that cannot be read is added to `skipped`."""
    specs: dict[str, dict[str, Any]] = {}
    for path in (run / "plan.json" for run in runs):
        try:
            cells = json.loads(path.read_bytes())["cells"]
            specs |= {cell: {name: value for name, value in spec.items() if name != "stages"} for cell, spec in cells.items()}
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            skipped.append(Skipped(path=path, reason=f"no plan of ours: {error!r}; holes are not known"))
    return specs


def record_files(runs: Sequence[Path]) -> Iterable[Path]:
    """The path of every record.json. Raises AnalysisError for what is no run folder."""
    for run in runs:
        if not run.is_dir():
            raise AnalysisError(f"no such folder: {run}; give a run folder such as runs/<grid>, which `python -m harness.launch` makes")
        if not (run / "cells").is_dir():
            inside = sorted(one.parent.name for one in run.glob("*/cells"))
            hint = f"; did you mean {run / inside[0]}?" if inside else ": its first cell has not finished, or it is no run folder"
            raise AnalysisError(f"{run} has no folder 'cells'{hint}")
        yield from (run / "cells").glob("*/record.json")


def checked(path: Path, record: Record) -> Record:
    """`record`, if it contradicts neither itself nor its place. Raises ValueError."""
    if record.id != path.parent.name:
        raise ValueError(f"the record of cell {record.id} in the folder of cell {path.parent.name}")
    if record.status == "done" and record.metrics is None:
        raise ValueError("done, but without metrics")
    if record.status == "failed" and record.failure is None:
        raise ValueError("failed, but without a reason")
    if record.metrics and record.status == "done" and not 0 <= record.metrics.top1 <= 100:
        raise ValueError(f"top1 is {record.metrics.top1}, not a percentage")
    return record


def reason(path: Path, error: Exception) -> str:
    """Why `path` gave no record, in one line."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return f"torn, or no JSON: {first['msg']}"
    version = stated_version(path)
    if isinstance(version, int) and version > SCHEMA:
        return f"schema {version} is newer than {SCHEMA}, which this version reads; update vssm-bench"
    at = ".".join(map(str, first["loc"])) or "the whole file"
    return f"no record of schema {SCHEMA}: {at}: {first['msg']}"


def stated_version(path: Path) -> object:
    """The schema that a JSON file claims, None if it claims none."""
    value = json.loads(path.read_bytes())
    return value.get("schema_version") if isinstance(value, dict) else None
