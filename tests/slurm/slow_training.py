"""Real training as slow as a test needs it, with the same weights in the end.

`python -m tests.slurm.slow_training <arguments of harness.launch>` launches jobs that read and write these files:

<run>/slow/<seed>     read: '2 3.5 9' lets the first two attempts at a stage of this seed pause 3.5 s after every step, and from step 9 on for ever;
                      while the file is there. An attempt that made no step, because SLURM sent it to a node that was gone, does not count
<run>/unlocked        read: if it is there, no node sees the locks of another, as on file systems that keep locks within one node
<stage>/steps         written: a line for every step that an attempt makes: attempt, step, node, time
"""

import fcntl
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from jobs.cluster.slurm import restarts
from jobs.experiment.job import JobSpec
from jobs.worker import job as runner


def run_job(job: JobSpec) -> None:
    """The job of jobs.worker.job, with a pause after every step."""
    from jobs.train.stage_trainer import StageTrainer

    if (Path(job.run) / "unlocked").exists():
        fcntl.flock = lambda *_: None  # type: ignore[assignment]
    train_step = StageTrainer.train_step

    def slow_step(self: StageTrainer, batches: Iterator[Any]) -> None:
        train_step(self, batches)
        attempt = restarts()
        made = self.folder / "steps"
        with made.open("a") as file:
            file.write(f"{attempt} {self.state.step} {os.environ['SLURMD_NODENAME']} {time.time()}\n")
        earlier_attempts = len({int(line.split()[0]) for line in made.read_text().splitlines()} - {attempt})
        pause(self.folder.parents[1] / "slow" / str(self.spec.seed), earlier_attempts, self.state.step)

    StageTrainer.train_step = slow_step  # type: ignore[method-assign]
    runner.run_job(job)


def pause(slow: Path, earlier_attempts: int, step: int) -> None:
    """Returns after the pause that a file says for an attempt and a step, perhaps an endless one, or when the file is gone."""
    began = time.monotonic()
    with suppress(FileNotFoundError):
        while True:
            attempts, seconds, held = slow.read_text().split()
            if earlier_attempts >= int(attempts) or step < int(held) and time.monotonic() - began >= float(seconds):
                return
            time.sleep(0.1)


def main() -> int:
    """The exit code of a launch whose jobs train slowly."""
    from harness import launch
    from harness.submit import slurm as arrays
    from tests.slurm import slow_training

    arrays.run_job = slow_training.run_job
    return launch.main()


if __name__ == "__main__":
    sys.exit(main())
