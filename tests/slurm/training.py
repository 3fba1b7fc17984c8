"""Real training on a real SLURM, as slow as a test needs it and in the same weights.

python -m tests.slurm.training <arguments of harness.launch>      launches jobs that heed, and leave, these files:

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

from harness.plan.orders import Order
from harness.run import runner
from jobs.scheduling.scheduler import restarts


def run_order(order: Order) -> None:
    """harness.run.runner's, with a rest after every step."""
    from jobs.train.stage_run import StageRun

    if (Path(order.run) / "unlocked").exists():
        fcntl.flock = lambda *_: None  # type: ignore[assignment]
    train_step = StageRun.train_step

    def slow_step(self: StageRun, batches: Iterator[Any]) -> None:
        train_step(self, batches)
        attempt = restarts()
        with (self.folder / "steps").open("a") as file:
            file.write(f"{attempt} {self.tally.step} {os.environ['SLURMD_NODENAME']} {time.time()}\n")
        rest(self.folder.parents[1] / "slow" / str(self.spec.seed), attempt)

    StageRun.train_step = slow_step  # type: ignore[method-assign]
    runner.run_order(order)


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
    from harness.submit import arrays
    from tests.slurm import training

    arrays.run_order = training.run_order
    return launch.main()


if __name__ == "__main__":
    sys.exit(main())
