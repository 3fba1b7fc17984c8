"""Run folders as launches and jobs leave them, without running a network."""

import json
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from harness.grid.read import Grid
from harness.plan.frozen import freeze
from harness.plan.orders import CellPath, Order, cell_paths
from harness.plan.stages import Plan, make_plan
from harness.records import Failure, RunFolder
from tests.harness.make_orders import finished, small_grid


@dataclass
class FakeRun:
    """A launched grid of 2 trunks with 3 children each, of which nothing has run."""

    run: RunFolder
    grid: Grid
    plan: Plan
    paths: tuple[CellPath, ...]

    def finish(self, stage: str, train_s: float = 3600.0) -> None:
        """A stage leaves its weights."""
        export = self.run.stage(stage) / "export"
        export.mkdir(parents=True)
        (export / "result.json").write_text(json.dumps({"train_s": train_s, "steps": 10, "epochs": 1}, indent=1))

    def record(self, path: CellPath) -> None:
        """A cell leaves its record."""
        self.run.write_record(finished(self.run, Order(run="", grid=self.grid.name, stages=(), cells=(), cluster=self.grid.cluster), path))

    def fail(self, stage: str, kind: str = "ValueError", message: str = "no", traceback: str = "") -> None:
        """A stage leaves its failure."""
        self.run.write_failure(stage, Failure(kind=kind, message=message, stage=stage, traceback=traceback))

    def beat(self, stage: str, **changes: object) -> None:
        """A stage tells how far it is."""
        told = {
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
        self.run.stage(stage).mkdir(parents=True, exist_ok=True)
        (self.run.stage(stage) / "progress.json").write_text(json.dumps(told | changes))

    def submit(self, jobs: dict[str, list[str]]) -> Path:
        """A launch has handed these stages to these jobs."""
        folder = self.run.path / "jobs" / str(1 + len(list(self.run.path.glob("jobs/*"))))
        folder.mkdir(parents=True)
        (folder / "stages.json").write_text(json.dumps(jobs))
        return folder

    def log(self, folder: Path, job: str, text: str, rank: int = 0) -> Path:
        """What a rank of a job has printed."""
        path = folder / f"{job.rpartition(':')[2]}_{rank}_log.out"
        path.write_text(text)
        return path

    @property
    def trunks(self) -> list[str]:
        """The shared first stages."""
        return list(dict.fromkeys(path.stages[0] for path in self.paths))

    def cells_of(self, stage: str) -> list[CellPath]:
        """The cells that need a stage."""
        return [path for path in self.paths if stage in path.stages]


def fake_run(tmp_path: Path) -> FakeRun:
    """Under runs/small, as a launch in `tmp_path` makes it."""
    grid = small_grid(tmp_path)
    plan = make_plan(grid.cells)
    run = RunFolder(tmp_path / "runs" / grid.name)
    freeze(grid, plan, run)
    return FakeRun(run, grid, plan, cell_paths(grid, plan))


def elsewhere(pid: int = 4711) -> str:
    """A local job of another machine."""
    return f"not-{socket.gethostname()}:{pid}"
