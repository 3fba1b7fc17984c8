"""The stages of run folders that are in training: how far each has come, and its curves by step."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from pathlib import Path

from analysis.curves import number
from analysis.lines import json_lines
from jobs.experiment.index import RunIndexError, read_index
from jobs.experiment.progress import StageProgress, read_progress
from jobs.experiment.run_folder import EXPORT, FAILURE, METRICS, RunFolder

POINTS = 160  # of a curve at most

Points = tuple[tuple[float, float], ...]  # (step, value)


@dataclass(frozen=True, kw_only=True)
class StageCurves:
    """A stage with its curves by step."""

    stage: str
    title: str
    loss: Points
    val_top1: Points  # percent, at the end of epochs
    progress: StageProgress | None
    changed: float  # when its metrics were last written, Unix seconds


def stages_in_training(runs: Sequence[Path]) -> list[StageCurves]:
    """The stages that have written metrics, and neither weights nor a failure; the one that wrote last comes first."""
    return sorted((curves for curves, at_work in every_stage(runs) if at_work), key=lambda curves: -curves.changed)


def latest_stages(runs: Sequence[Path], most: int) -> list[StageCurves]:
    """The stages that wrote metrics last, in training or not."""
    return sorted((curves for curves, _ in every_stage(runs)), key=lambda curves: -curves.changed)[:most]


def every_stage(runs: Sequence[Path]) -> Iterator[tuple[StageCurves, bool]]:
    """Each planned stage with metrics, and whether it is in training. A run folder without an index has none."""
    for run in map(RunFolder, runs):
        try:
            stages = read_index(run).stages
        except RunIndexError:
            continue
        for stage, entry in stages.items():
            folder = run.stage_dir(stage)
            try:
                status = (folder / METRICS).stat()
            except OSError:
                continue
            loss, val_top1 = curves_of(folder / METRICS, status.st_size, status.st_mtime_ns)
            at_work = not (folder / EXPORT).exists() and not (folder / FAILURE).exists()
            progress = read_progress(folder) if at_work else None
            curves = StageCurves(stage=stage, title=entry.title, loss=loss, val_top1=val_top1, progress=progress, changed=status.st_mtime)
            yield curves, at_work


@lru_cache(maxsize=1024)
def curves_of(path: Path, size: int, mtime_ns: int) -> tuple[Points, Points]:
    """(training loss, validation top-1) by step, read once as long as size and time of change stay."""
    lines = json_lines(path)
    return points([line for line in lines if line.get("event") == "step"] or lines, "loss"), points(lines, "val_top1")


def points(lines: Sequence[dict[str, object]], name: str) -> Points:
    """The values of a metric by step, thinned; the last one always stays."""
    pairs = ((number(line.get("step")), number(line.get(name))) for line in lines)
    known = [(step, value) for step, value in pairs if step is not None and value is not None]
    return tuple(known[:: -ceil(len(known) / POINTS)][::-1]) if known else ()
