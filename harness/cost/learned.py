"""What finished records tell of the time that work takes: the stages behind them, and their measurement, by model and kind of stage."""

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import msgspec

from harness.cost.work import Shape, WorkKey, key_of, kind_of
from harness.monitor.json_fields import read_fields
from harness.monitor.lookup import launched
from harness.plan.stages import make_graph
from jobs.experiment.cell import Cell
from jobs.experiment.ids import StageId
from jobs.experiment.records import Environment, Record, RecordError, read_record, trained_recipe
from jobs.experiment.run_folder import RESULT, STAGE, RunFolder
from jobs.worker.environment import cpu_name

MOST_RECORDS = 500  # that are read, the newest of the run folder at hand first
DENSE = "dense"


class ResultFields(msgspec.Struct):
    """The part of a result.json that is read here."""

    train_s: float
    steps: int
    epochs: int
    joules: float | None = None


RESULT_FIELDS = msgspec.json.Decoder(ResultFields)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A finished stage. Seconds are those of its job, bytes those of its export."""

    wall_s: float  # from its start to its export: with what it did before its first step
    train_s: float
    steps: int
    epochs: int
    joules: float | None
    file_bytes: int


@dataclass(kw_only=True)
class Learned:
    """What records tell of one work on one device."""

    device: str
    records: int = 0
    stages: dict[str, dict[tuple[str, StageId], Sample]] = field(default_factory=dict)  # by kind of stage, each stage once
    measured_s: dict[bool, list[float]] = field(default_factory=dict)  # of cells, by whether they were pruned

    def samples(self, kind: str) -> list[Sample]:
        """The finished stages of a kind."""
        return list(self.stages.get(kind, {}).values())

    @property
    def trained(self) -> list[Sample]:
        """The finished stages that made steps, whatever their kind."""
        return [sample for by_id in self.stages.values() for sample in by_id.values() if sample.steps]

    @property
    def steps_per_epoch(self) -> int:
        """The steps of an epoch."""
        return max(-(-sample.steps // max(1, sample.epochs)) for sample in self.trained)


def learned(run: RunFolder, runs: Path, keys: Collection[WorkKey], *, local: bool) -> dict[WorkKey, Learned]:
    """What the records of `run`, and of the other run folders in `runs`, tell of the works with these keys.

    local: the jobs are to run here, so that records of other CPUs do not count. Only works are in it of which a stage that made steps is known. Where
    several devices fit, that with most records counts.
    """
    known: dict[tuple[WorkKey, str], Learned] = {}
    for folder, record in newest_records(run, runs):
        made = record.environment
        device, cell = device_of(made, local=local), cell_of(record)
        if device is None or cell is None or (key := key_of(cell, Shape(made.ranks, made.threads, made.gpu is not None))) not in keys:
            continue
        add(known.setdefault((key, device), Learned(device=device)), folder, cell, record)
    counts = Counter({(key, device): entry.records for (key, device), entry in known.items() if entry.trained})
    best: dict[WorkKey, Learned] = {}
    for (key, device), _ in counts.most_common():
        best.setdefault(key, known[key, device])
    return best


def newest_records(run: RunFolder, runs: Path) -> Iterator[tuple[RunFolder, Record]]:
    """The done records, at most MOST_RECORDS: those of `run`, then those of the other run folders, the latest launch first."""
    left = MOST_RECORDS
    for folder in [run, *(RunFolder(path) for path in launched(runs) if path != run.path)]:
        for path in sorted(folder.record_paths(), key=changed, reverse=True)[:left]:
            left -= 1
            try:
                record = read_record(path)
            except (RecordError, OSError):
                continue
            if record.status == "done":
                yield folder, record


def changed(path: Path) -> float:
    """When a file was written; 0 if it is gone."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def device_of(environment: Environment, *, local: bool) -> str | None:
    """The device that made a record; None for another CPU than this machine's, if the jobs are to run here."""
    return None if local and environment.cpu != cpu_name() else environment.gpu or environment.cpu


def cell_of(record: Record) -> Cell | None:
    """The cell of a record, with the recipe of its chosen trial if it was tuned; None if it is one of another version, or of a plug-in that is not
    loaded.
    """
    try:
        spec = {part: value for part, value in record.spec.items() if part != "tune"}
        return Cell.from_json(spec | {"recipe": trained_recipe(record)})
    except (KeyError, ValueError, TypeError):
        return None


def add(known: Learned, run: RunFolder, cell: Cell, record: Record) -> None:
    """Adds what a record tells."""
    graph = make_graph([cell])
    path = [graph.stages[stage] for stage in graph.paths[cell.id]]
    if len(path) != len(record.stages):
        return
    known.records += 1
    for spec, stage in zip(path, record.stages, strict=True):
        if sample := sample_of(run, stage):
            known.stages.setdefault(kind_of(spec), {})[str(run.path), stage] = sample
    if (seconds := measured_s(record)) is not None:
        known.measured_s.setdefault(cell.method.name != DENSE, []).append(seconds)


def sample_of(run: RunFolder, stage: StageId) -> Sample | None:
    """A finished stage as its folder shows it; None if that is gone."""
    export, attempt = run.export_dir(stage), run.stage_dir(stage) / STAGE
    try:
        result = read_fields(export / RESULT, RESULT_FIELDS)
        wall_s = max(result.train_s, changed(export / RESULT) - changed(attempt) if attempt.exists() else 0.0)
        size = sum(path.stat().st_size for path in export.iterdir())
    except (OSError, ValueError):
        return None
    return Sample(wall_s=wall_s, train_s=result.train_s, steps=result.steps, epochs=result.epochs, joules=result.joules, file_bytes=size)


def measured_s(record: Record) -> float | None:
    """How long the measurement of a cell took, to a second; None if its record does not say."""
    try:
        seconds = (datetime.fromisoformat(record.finished) - datetime.fromisoformat(record.started)).total_seconds()
    except (ValueError, TypeError):
        return None
    return max(0.0, seconds)
