"""What a stage in training tells the outside: metrics as JSON lines, and where it stands."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobs.experiment.files import written_aside
from jobs.experiment.progress import StageProgress as StageProgress
from jobs.experiment.progress import write_progress

PERIOD_S = 1.0  # between two reports of progress


def ignore(progress: StageProgress) -> None:
    """A reporter for those who do not look."""


class MetricsLog:
    """metrics.jsonl of a stage: each line has `event` (step, epoch), `step`, `epoch`; a step stands once, whatever was killed and resumed."""

    def __init__(self, path: Path, step: int) -> None:
        """Goes on after optimizer step `step`: what stands there beyond it will be written again, and is cut off."""
        self.path = path
        kept = _lines_until(path, step) if path.exists() else []
        with written_aside(path) as aside:
            aside.write_text("".join(kept))

    def write(self, line: dict[str, Any]) -> None:
        """Appends one line; a reader sees it at once."""
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")


class Reporter:
    """Tells progress.json and a callback where the stage stands, at most once a second unless it is news."""

    def __init__(self, path: Path, callback: Callable[[StageProgress], None]) -> None:
        self.path, self.callback = path, callback
        self.due = 0.0

    def report(self, progress: StageProgress, *, news: bool = False) -> None:
        """`news`: an epoch has ended, say it now."""
        if time.monotonic() < self.due and not news:
            return
        self.due = time.monotonic() + PERIOD_S
        write_progress(self.path, progress)
        self.callback(progress)


def _lines_until(path: Path, step: int) -> list[str]:
    """Whole lines up to and including `step`; a kill may have torn the last one."""
    kept = []
    for line in path.read_text().splitlines(keepends=True):
        if not line.endswith("\n") or json.loads(line)["step"] > step:
            break
        kept.append(line)
    return kept
