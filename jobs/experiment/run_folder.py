"""The folder of a grid's run: where everything lies, and the state that it is in.

runs/<grid>/
    grid.yaml  plan.json  code.json  code.diff     the grid as launched, what it expands to, the code that ran it
    stages/<id>/  stage.json  micro_batch.json  metrics.jsonl  progress.json  checkpoints/  export/ | failure.json
    cells/<id>/   record.json  model.safetensors  masks.safetensors  structure.json
    jobs/<n>/     submitit's folder: logs; stages.json: which job runs which stages
    claims/<id>   locked while a process works on the stage or cell
    cancelled/<id>  a cell that is wanted no more, until the next launch
    nodes/<node>/   failures of that node
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from jobs.experiment.files import write_json
from jobs.experiment.records import Failure, Record, read_as, read_record

RUNS = Path("runs")  # where run folders are kept unless --runs says otherwise
# Of the run folder itself
INDEX, INDEX_OF_0_1 = "index.json", "forest.json"  # stages and cells, as jobs.experiment.index reads them
GRID, PLAN, CODE, CODE_DIFF, LAUNCH_LOCK = "grid.yaml", "plan.json", "code.json", "code.diff", "launch.lock"
STAGES, CELLS, JOBS, CLAIMS, CANCELLED, NODES, REPRODUCTIONS = "stages", "cells", "jobs", "claims", "cancelled", "nodes", "reproductions"
# Of a stage's folder
STAGE, PROGRESS, METRICS, CHECKPOINTS = "stage.json", "progress.json", "metrics.jsonl", "checkpoints"
MICRO_BATCH, FAILURE, EXPORT, REPLAY_TODO = "micro_batch.json", "failure.json", "export", "replay.todo"
# Of an export, and of a cell's folder
WEIGHTS, MASKS, STRUCTURE, RESULT, RECORD = "model.safetensors", "masks.safetensors", "structure.json", "result.json", "record.json"
# Of a job's folder
SUBMITTED = "stages.json"  # which job runs which stages


def holds_done_stage(has: Callable[[str], bool]) -> bool:
    """True for the folder of a done stage: its export is there (renamed into place, so it is whole), and no step of it has to be trained again.

    has: whether a name is in the folder.
    """
    return has(EXPORT) and not has(REPLAY_TODO)


class RunFolder:
    """Where the parts of one grid's run lie, and what state they are in. Truth is on disk alone: no process must stay alive for it."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def index_path(self) -> Path | None:
        """The index of the latest launch, None where nothing was launched."""
        return next((path for name in (INDEX, INDEX_OF_0_1) if (path := self.path / name).exists()), None)

    def stage_dir(self, stage: str) -> Path:
        """The folder of a stage."""
        return self.path / STAGES / stage

    def record_path(self, cell: str) -> Path:
        """The record of a cell, there or not."""
        return self.path / CELLS / cell / RECORD

    def record(self, cell: str) -> Record | None:
        """The record of a cell, None when it has not ended."""
        path = self.record_path(cell)
        return read_record(path) if path.exists() else None

    def write_record(self, record: Record) -> Path:
        """The record's path, written whole or not at all."""
        path = self.record_path(record.id)
        write_json(path, record.model_dump(mode="json"))
        return path

    def cancelled(self, cell: str) -> bool:
        """True when somebody wants this cell no more; the next launch does."""
        return (self.path / CANCELLED / cell).exists()

    def cancelled_cells(self) -> frozenset[str]:
        """The cells that somebody wants no more."""
        folder = self.path / CANCELLED
        return frozenset(os.listdir(folder)) if folder.is_dir() else frozenset()

    def want(self, cells: Iterable[str]) -> None:
        """Takes back that these cells were cancelled."""
        for cell in self.cancelled_cells().intersection(cells):
            (self.path / CANCELLED / cell).unlink(missing_ok=True)

    def done(self, stage: str) -> bool:
        """True when the stage has left its weights, those that later stages rewind to among them."""
        folder = self.stage_dir(stage)
        return holds_done_stage(lambda name: (folder / name).exists())

    def failure(self, stage: str) -> Failure | None:
        """Why the stage has stopped for good, None when it has not. Raises RecordError when the file is torn."""
        path = self.stage_dir(stage) / FAILURE
        return read_as(Failure, path) if path.exists() else None

    def write_failure(self, stage: str, failure: Failure) -> bool:
        """True when this failure is the first of its stage: what a bystander says later never covers it."""
        folder = self.stage_dir(stage)
        if (folder / FAILURE).exists():
            return False
        write_json(folder / FAILURE, failure.model_dump(mode="json"))
        return True

    def forget_failures(self, stages: Iterable[str], cells: Iterable[str]) -> None:
        """Removes the failures of these stages and the failed records of these cells, so that they run again from their last checkpoint."""
        for cell in cells:
            record = self.record(cell)
            if record is not None and record.status == "failed":
                self.record_path(cell).unlink()
        for stage in stages:  # after the records: a failed record always has a failed stage on its path, even if this is killed here
            (self.stage_dir(stage) / FAILURE).unlink(missing_ok=True)
