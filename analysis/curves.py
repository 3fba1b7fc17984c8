"""Training curves: the metrics.jsonl of the stages of a cell, joined along its path."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from analysis.lines import json_lines
from jobs.experiment.records import Record
from jobs.experiment.run_folder import METRICS, RunFolder

POINTS = 200  # of a curve at most


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A cell's training by epoch. Epochs are counted over its whole path."""

    seed: int
    epochs: tuple[float, ...]
    loss: tuple[float | None, ...]
    val_top1: tuple[float | None, ...]


def curve(record: Record, runs: Sequence[Path]) -> Curve | None:
    """The curve of a cell; None if no run folder has metrics of its stages."""
    points: list[tuple[float, float | None, float | None]] = []
    before = 0.0
    for stage in record.stages:
        lines = next(filter(None, (epoch_lines(RunFolder(run).stage_dir(stage) / METRICS) for run in runs)), [])
        points += [(before + line["epoch"], number(line.get("loss")), number(line.get("val_top1"))) for line in lines]
        before = points[-1][0] if points else before
    if not points:
        return None
    points = points[:: -ceil(len(points) / POINTS)][::-1]  # the last epoch always stays
    epochs, loss, val_top1 = zip(*points, strict=True)
    return Curve(seed=record.seed, epochs=epochs, loss=loss, val_top1=val_top1)


def epoch_lines(path: Path) -> list[dict[str, Any]]:
    """The lines that were written at the end of epochs. Torn or foreign lines are skipped; a missing file has no lines."""
    return [line for line in json_lines(path) if line.get("event") == "epoch" and number(line.get("epoch")) is not None]


def number(value: Any) -> float | None:
    """`value` if it is a finite number, else None, because JSON for a browser has no NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < float("inf") else None
