"""A finished cell as trackers see it: a run with an id, settings, curves and final numbers."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from analysis.curves import number
from analysis.lines import json_lines
from jobs.experiment.records import Metrics, Record, trained_recipe
from jobs.experiment.run_folder import METRICS, RunFolder

APART = ("event", "step", "epoch", "time")  # of a line of metrics.jsonl: what it is about, not what it measured


@dataclass(frozen=True, kw_only=True)
class Point:
    """What was measured at an optimizer step, counted over the whole path of the cell."""

    step: int
    time: float  # seconds since 1970; 0: not known
    values: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Tracked:
    """A cell. The id is the cell's, so that a tracker that is given a cell twice has it once; further results of a cell have a number behind it."""

    id: str
    group: str  # the grid
    name: str
    settings: Mapping[str, str | int | float | bool]  # by dotted names; null is left out
    points: Sequence[Point]
    final: Mapping[str, float]
    failure: str | None  # why it has no numbers
    started: float  # seconds since 1970
    finished: float


def tracked_cells(records: Iterable[Record], runs: Sequence[Path]) -> Iterator[Tracked]:
    """The cells of records, with the curves of their stages where one of the run folders has them.

    A cell has several results if it was timed by several protocols, or if it ran on several clusters.
    """
    results: Counter[str] = Counter()
    for record in records:
        results[record.id] += 1
        number_of = f"-{results[record.id]}" if results[record.id] > 1 else ""
        metrics = {name: getattr(record.metrics, name) for name in Metrics.model_fields} if record.metrics else {}
        extra = {
            "model": record.model,
            "pruning": record.pruning,
            "cpu": record.environment.cpu,
            "gpu": record.environment.gpu,
            "host": record.environment.host,
        }
        extra["speed_protocol"] = record.metrics.speed_protocol if record.metrics else None
        yield Tracked(
            id=file_name(record.id) + number_of,
            group=file_name(record.grid),
            name=f"{record.model} {record.pruning} seed {record.seed} {record.id}{number_of}",
            settings=flat({"spec": {**record.spec, "recipe": trained_recipe(record)}} | extra),
            points=points(record, runs),
            final={name: value for name, given in metrics.items() if (value := number(given)) is not None},
            failure=f"{record.failure.kind}: {record.failure.message}" if record.failure else None,
            started=seconds(record.started),
            finished=seconds(record.finished),
        )


def points(record: Record, runs: Sequence[Path]) -> list[Point]:
    """The lines of all stages on a cell's path, those of one step as one point."""
    merged: dict[int, Point] = {}
    before = 0
    for stage in record.stages:
        lines = next(filter(None, (json_lines(RunFolder(run).stage_dir(stage) / METRICS) for run in runs)), [])
        for line in lines:
            step, values = before + int(number(line.get("step")) or 0), measured(line)
            known = merged.get(step)
            merged[step] = Point(step=step, time=number(line.get("time")) or 0.0, values={**(known.values if known else {}), **values})
        before = max(merged, default=before)
    return [merged[step] for step in sorted(merged)]


def measured(line: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of a line."""
    return {name: value for name, given in line.items() if name not in APART and (value := number(given)) is not None}


def flat(values: Mapping[str, Any], above: str = "") -> dict[str, str | int | float | bool]:
    """Nested settings by dotted names; lists as text."""
    every: dict[str, str | int | float | bool] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            every |= flat(value, f"{above}{name}.")
        elif value is not None:
            every[above + name] = value if isinstance(value, bool | int | float | str) else str(value)
    return every


def file_name(text: str) -> str:
    """A text of a record, which may be a stranger's, as the name of a file or folder: other characters than letters, digits, -, _ and . become _."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", text).lstrip(".")[:200] or "_"


def seconds(time: str) -> float:
    """A moment in ISO 8601 as seconds since 1970; 0 for another text."""
    try:
        return datetime.fromisoformat(time).timestamp()
    except ValueError:
        return 0.0
