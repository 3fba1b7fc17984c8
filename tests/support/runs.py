"""Run folders as launches and jobs leave them, made without running a network."""

import json
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from harness.grid.read import Grid
from harness.plan.jobs import planned_cells
from harness.plan.snapshot import save_launch
from harness.plan.stages import StageGraph, make_graph
from jobs.experiment.job import JobSpec, PlannedCell
from jobs.experiment.records import Failure
from jobs.experiment.run_folder import RESULT, SUBMITTED, RunFolder
from tests.support.jobs import finished, small_grid
from tests.support.waiting import PATIENCE_S


@dataclass
class FakeRun:
    """A launched grid of 2 trunks with 3 children each, of which nothing has run."""

    run: RunFolder
    grid: Grid
    plan: StageGraph
    paths: tuple[PlannedCell, ...]

    def finish(self, stage: str, train_s: float = 3600.0) -> None:
        """A stage leaves its weights."""
        export = self.run.export_dir(stage)
        export.mkdir(parents=True)
        (export / RESULT).write_text(json.dumps({"train_s": train_s, "steps": 10, "epochs": 1}, indent=1))

    def record(self, path: PlannedCell) -> None:
        """A cell leaves its record."""
        self.run.write_record(finished(JobSpec(run="", grid=self.grid.name, stages=(), cells=(), cluster=self.grid.cluster), path))

    def fail(self, stage: str, kind: str = "ValueError", message: str = "no", traceback: str = "") -> None:
        """A stage leaves its failure."""
        self.run.write_failure(stage, Failure(kind=kind, message=message, stage=stage, traceback=traceback))

    def beat(self, stage: str, **changes: object) -> None:
        """A stage writes its progress, and is heard of for as long as a test may take."""
        progress = {
            "epoch": 1,
            "epochs": 4,
            "step": 25,
            "steps": 100,
            "loss": 0.5,
            "img_per_s": 100.0,
            "eta_s": 75.0,
            "val_top1": None,
            "time": time.time(),
        }
        self.run.stage_dir(stage).mkdir(parents=True, exist_ok=True)
        self.run.progress_path(stage).write_text(json.dumps(progress | changes))
        os.utime(self.run.progress_path(stage), (time.time() + PATIENCE_S,) * 2)

    def submit(self, jobs: dict[str, list[str]]) -> Path:
        """A launch gives these stages to these jobs. Returns the folder of the jobs."""
        folder = self.run.jobs_dir / str(1 + len(list(self.run.jobs_dir.glob("*"))))
        folder.mkdir(parents=True)
        (folder / SUBMITTED).write_text(json.dumps(jobs))
        return folder

    def log(self, folder: Path, job: str, text: str, rank: int = 0) -> Path:
        """A rank of a job prints a text. Returns its log."""
        path = folder / f"{job.rpartition(':')[2]}_{rank}_log.out"
        path.write_text(text)
        return path

    @property
    def trunks(self) -> list[str]:
        """The shared first stages."""
        return list(dict.fromkeys(path.stages[0] for path in self.paths))

    def cells_of(self, stage: str) -> list[PlannedCell]:
        """The cells that need a stage."""
        return [path for path in self.paths if stage in path.stages]


def fake_run(tmp_path: Path) -> FakeRun:
    """The run folder runs/small that a launch in `tmp_path` makes."""
    grid = small_grid(tmp_path)
    plan = make_graph(grid.cells)
    run = RunFolder(tmp_path / "runs" / grid.name)
    save_launch(grid, plan, run)
    return FakeRun(run, grid, plan, planned_cells(grid, plan))


def elsewhere(pid: int = 4711) -> str:
    """The id of a local job of another machine."""
    return f"not-{socket.gethostname()}:{pid}"
