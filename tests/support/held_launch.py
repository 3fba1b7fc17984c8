"""A launch whose local jobs wait in the middle of a training, so that a test cannot miss it.

`python -m tests.support.held_launch <arguments of harness.launch>` launches jobs that read this file when they start:

<folder of runs/>/held    '1 3' lets every rank wait after the third step, and each later one, of a training that begins when one stage is done,
                          while the file is there
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from jobs.experiment.job import JobSpec
from jobs.worker import job as runner
from tests.support.commands import command, processes_of

ROOT = Path(__file__).parents[2]


def run_job(job: JobSpec) -> None:
    """The job of jobs.worker.job, held if a file says so."""
    run = Path(job.run).resolve()
    held = run.parents[1] / "held"
    if held.exists():
        from jobs.train.stage_trainer import StageTrainer

        stages, step = map(int, held.read_text().split())
        train_step = StageTrainer.train_step

        def held_step(self: StageTrainer, batches: Iterator[Any]) -> None:
            train_step(self, batches)
            while held.exists() and self.state.step >= step and len(list(run.glob("stages/*/export"))) >= stages:
                time.sleep(0.05)

        StageTrainer.train_step = held_step  # type: ignore[method-assign]
    runner.run_job(job)


def start_held(grid: Path, stages: int, step: int, **options: Any) -> "subprocess.Popen[str]":
    """A launch beside its grid, just started. Its jobs wait after a step, with so many stages done, until the file `held` beside the grid is gone.

    `options`: of the process.
    """
    (grid.parent / "held").write_text(f"{stages} {step}")
    words, surroundings = command("tests.support.held_launch", grid), os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(words, cwd=grid.parent, env=surroundings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


def kill_all(folder: Path) -> None:
    """Kills every process that works for a run folder under `folder`, as a machine that goes down does."""
    for process in processes_of(folder):
        with suppress(psutil.NoSuchProcess):
            process.kill()


def main() -> int:
    """The exit code of the launch."""
    from harness import launch
    from harness.submit import local
    from tests.support import held_launch

    local.run_job = held_launch.run_job
    return launch.main()


if __name__ == "__main__":
    sys.exit(main())
