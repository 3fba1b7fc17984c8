"""The folder of a grid's run: every file name in it, and its state.

runs/<grid>/
    grid.yaml  plan.json  index.json    the grid as launched, its cells with all settings, the titles of its cells and stages
    code.json  code.diff  code/<id>/    the version of the code that runs it, and a copy of each version: the jobs run it
    data.json                           the data sets that SLURM jobs write for it first
    budget.json                         the cells that were chosen for a budget
    plugins/<sha256>/   plugin.json  the plug-in's files: what jobs load
    notify.json  notified/<launch>-<event>  the command that a launch wants to be run, and what it printed
    launch.lock                         locked while a launch works
    stages/<id>/        stage.json  micro_batch.json  metrics.jsonl  progress.json  checkpoints/  export/ | failure.json
    cells/<id>/         record.json  model.safetensors  masks.safetensors  structure.json  config.json  README.md
    jobs/<n>/           submitit's folder: logs; stages.json: which job runs which stages
    claims/<id>         locked while a process works on the stage or cell
    cancelled/<id>      a cell that was cancelled, until the next launch
    nodes/<node>/       failures of that node
    reproductions/<n>/  a run of one recorded cell again
    verified/<cell>/    <moment>.json: how a cell that was run again compares with its record
"""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from jobs.experiment.files import write_json
from jobs.experiment.ids import CellId, StageId
from jobs.experiment.records import Failure, Record, RecordError, read_as, read_record, unreadable_failure

RUNS = Path("runs")  # where run folders are kept unless --runs says otherwise
# Of the run folder itself
INDEX, INDEX_OF_0_1 = "index.json", "forest.json"  # stages and cells, as jobs.experiment.index reads them
GRID, PLAN, CODE, CODE_DIFF, DATA, LAUNCH_LOCK = "grid.yaml", "plan.json", "code.json", "code.diff", "data.json", "launch.lock"
BUDGET = "budget.json"
STAGES, CELLS, JOBS, CLAIMS, CANCELLED, NODES, REPRODUCTIONS = "stages", "cells", "jobs", "claims", "cancelled", "nodes", "reproductions"
VERIFIED = "verified"
PLUGINS, CODE_COPIES, NOTIFY, NOTIFIED = "plugins", "code", "notify.json", "notified"
# Of a stage's folder
STAGE, PROGRESS, METRICS, CHECKPOINTS = "stage.json", "progress.json", "metrics.jsonl", "checkpoints"
UNFINISHED_EXPORT = ".export"  # becomes export/ when all of it is on disk
MICRO_BATCH, FAILURE, EXPORT, REPLAY_TODO = "micro_batch.json", "failure.json", "export", "replay.todo"
CHOICE = "choice.json"  # of the export of a stage that chooses among trials
# Of an export, and of a cell's folder
WEIGHTS, MASKS, STRUCTURE, RESULT, RECORD = "model.safetensors", "masks.safetensors", "structure.json", "result.json", "record.json"
CONFIG, CARD = "config.json", "README.md"  # of a cell's folder: what builds its network again, and its model card
# Of a job's folder
SUBMITTED = "stages.json"  # which job runs which stages


def holds_done_stage(has: Callable[[str], bool]) -> bool:
    """True for the folder of a done stage: its export is there (it appears by a rename, whole), and no step of it has to be trained again.

    has: whether a name is in the folder.
    """
    return has(EXPORT) and not has(REPLAY_TODO)


class RunFolder:
    """The files of one grid's run, and its state. Nothing but these files holds the state: no process must stay alive for it."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    # Of the run

    @property
    def launch_lock(self) -> Path:
        """The file that a launch locks while it works."""
        return self.path / LAUNCH_LOCK

    @property
    def jobs_dir(self) -> Path:
        """The folder with a folder for each launch's jobs."""
        return self.path / JOBS

    @property
    def code_dir(self) -> Path:
        """The folder with a copy of each version of the code that was launched."""
        return self.path / CODE_COPIES

    @property
    def plugins_dir(self) -> Path:
        """The folder with a copy of each plug-in, under the beginning of its digest."""
        return self.path / PLUGINS

    @property
    def grid_path(self) -> Path:
        """The grid as the latest launch read it."""
        return self.path / GRID

    @property
    def plan_path(self) -> Path:
        """The cells of the latest launch with all settings."""
        return self.path / PLAN

    def index_path(self) -> Path | None:
        """The index of the latest launch, or None if nothing was launched."""
        return next((path for name in (INDEX, INDEX_OF_0_1) if (path := self.path / name).exists()), None)

    def node_dir(self, node: str) -> Path:
        """The folder with the failures of a node."""
        return self.path / NODES / node

    # Of a stage

    def stage_dir(self, stage: str) -> Path:
        """The folder of a stage."""
        return self.path / STAGES / stage

    def export_dir(self, stage: str) -> Path:
        """The folder with the weights of a finished stage."""
        return self.stage_dir(stage) / EXPORT

    def progress_path(self, stage: str) -> Path:
        """The progress of a stage in training."""
        return self.stage_dir(stage) / PROGRESS

    def failure_path(self, stage: str) -> Path:
        """The failure of a stage, whether there is one or not."""
        return self.stage_dir(stage) / FAILURE

    def stage_claim(self, stage: str) -> Path:
        """The file that a process locks while it trains a stage."""
        return self.path / CLAIMS / stage

    def done(self, stage: str) -> bool:
        """True if the stage has left its weights, with those that later stages rewind to."""
        folder = self.stage_dir(stage)
        return holds_done_stage(lambda name: (folder / name).exists())

    def given_up(self, stage: str) -> bool:
        """True if the stage has stopped for good and has left no weights."""
        return self.failure_path(stage).exists() and not self.done(stage)

    def failure(self, stage: str) -> Failure | None:
        """Why the stage has stopped for good, or None. A file that cannot be read is a failure too, which says so."""
        path = self.failure_path(stage)
        try:
            return read_as(Failure, path) if path.exists() else None
        except RecordError as error:
            return unreadable_failure(StageId(stage), error)

    def write_failure(self, stage: str, failure: Failure) -> bool:
        """True if this failure is the first of its stage, and was written. A later one, of a process that suffered from the first, is dropped."""
        path = self.failure_path(stage)
        if path.exists():
            return False
        write_json(path, failure.model_dump(mode="json"))
        return True

    # Of a cell

    def record_path(self, cell: str) -> Path:
        """The record of a cell, whether there is one or not."""
        return self.path / CELLS / cell / RECORD

    def record_paths(self) -> Iterator[Path]:
        """The records of all cells that have ended."""
        return self.path.glob(f"{CELLS}/*/{RECORD}")

    def record(self, cell: str) -> Record | None:
        """The record of a cell, or None if the cell has not ended. Raises RecordError if it cannot be read."""
        path = self.record_path(cell)
        return read_record(path) if path.exists() else None

    def readable_record(self, cell: str) -> Record | None:
        """The record of a cell, or None if the cell has not ended, or if the record cannot be read."""
        try:
            return self.record(cell)
        except RecordError:
            return None

    def write_record(self, record: Record) -> Path:
        """The path of the record, which is written whole or not at all."""
        path = self.record_path(record.id)
        write_json(path, record.model_dump(mode="json"))
        return path

    def cell_claim(self, cell: str) -> Path:
        """The file that a process locks while it measures a cell."""
        return self.path / CLAIMS / f"cell-{cell}"

    def cancel(self, cell: str) -> None:
        """Marks a cell as cancelled: jobs leave out the stages that it alone needs, until the next launch."""
        mark = self.path / CANCELLED / cell
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()

    def cancelled(self, cell: str) -> bool:
        """True if the cell was cancelled since the latest launch."""
        return (self.path / CANCELLED / cell).exists()

    def cancelled_cells(self) -> frozenset[CellId]:
        """The cells that were cancelled since the latest launch."""
        folder = self.path / CANCELLED
        return frozenset(map(CellId, os.listdir(folder))) if folder.is_dir() else frozenset()

    def want(self, cells: Iterable[str]) -> None:
        """Takes back that these cells were cancelled."""
        for cell in self.cancelled_cells().intersection(cells):
            (self.path / CANCELLED / cell).unlink(missing_ok=True)

    def forget_failures(self, stages: Iterable[str], cells: Iterable[str]) -> None:
        """Removes the failures of these stages and the failed or unreadable records of these cells, which then run again."""
        for cell in cells:
            record = self.readable_record(cell)
            if record is None or record.status == "failed":
                self.record_path(cell).unlink(missing_ok=True)
        for stage in stages:  # after the records: a failed record always has a failed stage on its path, even if this is killed here
            self.failure_path(stage).unlink(missing_ok=True)
