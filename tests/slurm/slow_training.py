"""Real training on a real SLURM, as slow as a test needs it and in the same weights.

python -m tests.slurm.slow_training <arguments of harness.launch>      launches jobs that heed, and leave, these files:

<run>/slow/<seed>     '2 3.5': the first two attempts at a stage of this seed rest 3.5 s after every step, as long as the file is there
<run>/unlocked        no node sees the locks of another, as on file systems that keep them within one node
<stage>/steps         one line for every step that anybody made: attempt, step, node, time
"""

import fcntl
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobs.cluster.slurm import restarts
from jobs.experiment.job import JobSpec
from jobs.worker import job as runner


def run_job(order: JobSpec) -> None:
    """jobs.worker.job's, with a rest after every step."""
    from jobs.train.stage_trainer import StageTrainer

    if (Path(order.run) / "unlocked").exists():
        fcntl.flock = lambda *_: None  # type: ignore[assignment]
    train_step = StageTrainer.train_step

    def slow_step(self: StageTrainer, batches: Iterator[Any]) -> None:
        train_step(self, batches)
        attempt = restarts()
        with (self.folder / "steps").open("a") as file:
            file.write(f"{attempt} {self.tally.step} {os.environ['SLURMD_NODENAME']} {time.time()}\n")
        rest(self.folder.parents[1] / "slow" / str(self.spec.seed), attempt)

    StageTrainer.train_step = slow_step  # type: ignore[method-assign]
    runner.run_job(order)


def rest(slow: Path, attempt: int) -> None:
    """Returns after the seconds that a file says, or when it is gone."""
    began = time.monotonic()
    while slow.exists():
        attempts, seconds = slow.read_text().split()
        if attempt >= int(attempts) or time.monotonic() - began >= float(seconds):
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
