"""A recorded cell run again, in this process or by the copy of the code that its run folder keeps."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.plan.stages import make_graph
from harness.submit.local import fresh_folder
from harness.text import shortened
from jobs.data.prepare import prepare
from jobs.experiment.cell import Cell
from jobs.experiment.files import write_json
from jobs.experiment.identity import PROTOCOL
from jobs.experiment.job import JobSpec, PlannedCell
from jobs.experiment.records import Environment, Record, RecordError, read_record
from jobs.experiment.run_folder import CELLS, RECORD, RunFolder
from jobs.experiment.specs import ClusterSpec
from jobs.recovery.micro_batch import store_micro_batch
from jobs.worker.code_copy import surroundings_of
from jobs.worker.job import run_job

EXACT = ("top1", "top5", "test_loss", "test_samples", "val_top1", "train_loss", "params", "params_nonzero", "sparsity_prunable", "macs", "epochs")
SAME_MACHINE = ("cpu", "gpu", "ranks", "threads", "scan", "loader", "versions", "python")
PROFILE_S = 0.001  # of each timing: speeds are not compared
ASKED = "asked"  # of a folder of runs: the records that a copy of the code is to run again, by seed
# What a copy of the code runs: `reproduce` had the function in the versions before this module. Arguments: a record, its run folder, a new folder.
BY_A_COPY = """
import sys
from pathlib import Path
from jobs.experiment.plugins import load_copies
from jobs.experiment.records import read_record
from jobs.experiment.run_folder import RunFolder
try:
    from harness.review.again import run_again
except ImportError:
    from harness.reproduce import run_again
record = read_record(Path(sys.argv[1]))
load_copies(RunFolder(Path(sys.argv[2])), record.spec)
run_again(record, Path(sys.argv[3]))
"""


class NotRecordedError(ValueError):
    """No record fits the given id, or it has no numbers; the message lists ids that exist."""


class NotRunError(RuntimeError):
    """A cell could not be run again here; the message says why."""


def find(runs: Path, prefix: str) -> tuple[Path, Record]:
    """The finished record of the cell whose id begins so. Raises NotRecordedError for no cell, for several, and for a failed cell."""
    paths = sorted(runs.glob(f"*/{CELLS}/{prefix}*/{RECORD}")) if prefix.isalnum() else []
    ids = sorted({path.parent.name for path in paths})
    if not ids:
        known = sorted(path.parent.name for path in runs.glob(f"*/{CELLS}/*/{RECORD}"))
        hint = f"these have records: {shortened(known, 8)}" if known else f"there are no records under {runs}; launch a grid first"
        raise NotRecordedError(f"no cell '{prefix}'; {hint}")
    if len(ids) > 1:
        raise NotRecordedError(f"several cells begin with '{prefix}': {', '.join(ids)}; give more letters")
    records = readable(paths)
    path, record = next(((path, record) for path, record in records if record.status == "done"), records[0])
    if record.status != "done":
        raise NotRecordedError(f"cell {record.id} has no numbers to reproduce: it failed ({record.failure.kind if record.failure else 'unknown'})")
    return path, record


def readable(paths: Sequence[Path]) -> list[tuple[Path, Record]]:
    """The records that can be read, with their paths; at least one. Raises RecordError if there are none."""
    records, error = [], None
    for path in paths:
        try:
            records.append((path, read_record(path)))
        except RecordError as unreadable:
            error = unreadable
    if error is not None and not records:
        raise error
    return records


def protocol_note(record: Record) -> str:
    """That this version trains such a recipe by another protocol than the recorded run, so that the numbers will differ; empty where it does not."""
    now, then = (spec["recipe"].get(PROTOCOL) for spec in (Cell.from_json(record.spec).to_json(), record.spec))
    return (
        ""
        if now == then
        else f"note: this version trains by another protocol ({now}; recorded: {then or 'that of versions up to 0.2'}): numbers will differ"
    )


def folder_for(parent: Path) -> Path:
    """A new folder for a run: in `parent`, or a temporary one where `parent` cannot be written (another user's run folder)."""
    try:
        return fresh_folder(parent)
    except OSError:
        return Path(tempfile.mkdtemp(prefix="reproduce-"))


def run_again(record: Record, folder: Path) -> Record:
    """The record of a second run of every stage of the cell, in `folder`, with the threads of the first run and one rank.

    What `folder` already holds of it, such as after a kill, is not run again. Its speeds are rough: nothing compares them.
    """
    cell = Cell.from_json(record.spec)
    graph = make_graph((cell,))
    cluster = ClusterSpec(kind="debug", cpus_per_task=record.environment.threads, profile_s=PROFILE_S)
    prepare(cell.data, Path(cluster.cache))
    planned = PlannedCell(cell=cell, stages=graph.paths[cell.id], trials=graph.trials.get(cell.id, ()))
    for stage, micro_batch in (record.metrics.micro_batches if record.metrics else {}).items():
        store_micro_batch(RunFolder(folder).stage_dir(stage), micro_batch, "the recorded run ran out of memory with more")
    run_job(JobSpec(run=str(folder), grid=record.grid, stages=tuple(graph.stages.values()), cells=(planned,), cluster=cluster))
    return read_record(RunFolder(folder).record_path(cell.id))


def run_by_copy(copy: Path, path: Path, seed: int, folder: Path) -> Record:
    """The record of a run of a recorded cell with this seed in `folder`, by a copy of the code in another process. Raises NotRunError.

    path: the record.json. Its content goes to the copy as it stands: the version that wrote it reads it.
    """
    asked = folder / ASKED / f"{seed}.json"
    write_json(asked, with_seed(json.loads(path.read_bytes()), seed))
    command = [sys.executable, "-c", BY_A_COPY, str(asked), str(path.parents[2]), str(folder)]
    ended = subprocess.run(command, env=os.environ | surroundings_of(copy, os.environ), check=False)
    record = next((record for record in records_in(folder) if record.seed == seed), None)
    if record is None:
        raise NotRunError(f"the code in {copy} ended with exit code {ended.returncode} and left no record (its output is above)")
    return record


def records_in(folder: Path) -> list[Record]:
    """The records in a folder of runs. Raises RecordError."""
    return [read_record(path) for path in sorted(RunFolder(folder).record_paths())]


def with_seed(record: dict[str, Any], seed: int) -> dict[str, Any]:
    """A record's JSON with another seed, at which no stage is known to run out of memory."""
    if record["seed"] == seed:
        return record
    metrics = {name: value for name, value in record["metrics"].items() if name != "micro_batches"}
    return record | {"seed": seed, "spec": record["spec"] | {"seed": seed}, "metrics": metrics}


def machine(environment: Environment) -> dict[str, object]:
    """The part of an environment that must be equal for two runs to be equal to the bit."""
    return {name: getattr(environment, name) for name in SAME_MACHINE}


def unequal(first: Record, second: Record) -> tuple[str, ...]:
    """The names of the metrics that two records do not share, of those that equal weights give equally on one machine."""
    chosen = () if choice_in(first) == choice_in(second) else ("tuning",)
    return (*(name for name in EXACT if getattr(first.metrics, name, None) != getattr(second.metrics, name, None)), *chosen)


def choice_in(record: Record) -> object:
    """The trials of a record with their accuracies, and the choice, without the time that they took; None if the cell was not tuned."""
    return record.tuning and (record.tuning.trials, record.tuning.chosen)
