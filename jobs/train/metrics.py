"""What a stage in training reports: metrics as JSON lines, and its progress."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobs.experiment.files import written_aside
from jobs.experiment.progress import StageProgress, write_progress

PERIOD_S = 1.0  # between two reports of progress


def ignore(progress: StageProgress) -> None:
    """A callback that does nothing."""


class MetricsLog:
    """metrics.jsonl of a stage. Each line has `event` (step, epoch), `step` and `epoch`. Each step is there once, even if the stage was killed."""

    def __init__(self, path: Path, step: int) -> None:
        """Continues after optimizer step `step`: later lines will be written again, so they are removed."""
        self.path = path
        kept = _lines_until(path, step) if path.exists() else []
        with written_aside(path) as aside:
            aside.write_text("".join(kept), encoding="utf-8")

    def write(self, line: dict[str, Any]) -> None:
        """Appends one line; a reader sees it at once."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


class Reporter:
    """Reports progress to progress.json and to a callback, at most once a second unless it has to be now."""

    def __init__(self, path: Path, callback: Callable[[StageProgress], None]) -> None:
        self.path, self.callback = path, callback
        self.due = 0.0

    def report(self, progress: StageProgress, *, now: bool = False) -> None:
        """`now`: report at once, because an epoch has ended."""
        if time.monotonic() < self.due and not now:
            return
        self.due = time.monotonic() + PERIOD_S
        write_progress(self.path, progress)
        self.callback(progress)


def _lines_until(path: Path, step: int) -> list[str]:
    """The whole lines up to and including `step`. A kill may have torn the last line; lines after a damaged one are not kept."""
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        try:
            if not line.endswith("\n") or json.loads(line)["step"] > step:
                break
        except (ValueError, KeyError, TypeError):
            break
        kept.append(line)
    return kept
