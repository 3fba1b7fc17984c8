"""The trials of a tuned cell: their stages, those of them that are lost, and the choice among them by validation accuracy.

It is read with the index of a run folder, so it needs neither torch nor the models.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.experiment.ids import StageId

Values = Mapping[str, Any]  # of tuned keys of the recipe
StagePath = tuple[StageId, ...]  # first stage first


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One point of the space as a cell tries it, with the stages that this takes. Points that lead to the same stages are one trial."""

    values: Values
    stages: StagePath


def touching(values: Values, schedule: str) -> Values:
    """The tuned values that decide a stage of this schedule: the rate of fine-tuning decides no training."""
    return {key: value for key, value in values.items() if key != "finetune_lr" or schedule == "finetune"}


def in_words(values: Values) -> str:
    """Tuned values as status and tables show them: 'finetune_lr 0.002, weight_decay 0.05'."""
    return ", ".join(f"{key} {'null' if value is None else f'{value:g}' if type(value) is float else value}" for key, value in values.items())


def lost_stages(paths: Iterable[StagePath], failed: Callable[[StageId], bool]) -> frozenset[StageId]:
    """The stages that no trial can reach any more: on each path through them, they or a stage before them have failed."""
    lost: set[StageId] = set()
    within_reach: set[StageId] = set()
    for path in paths:
        end = next((number for number, stage in enumerate(path) if failed(stage)), len(path))
        within_reach.update(path[:end])
        lost.update(path[end:])
    return frozenset(lost - within_reach)


def required(stages: Sequence[StageId], paths: Sequence[StagePath]) -> StagePath:
    """Of a cell's stages those without which it has no result: each, but for the stages of single trials."""
    if not paths:
        return tuple(stages)
    every = set().union(*paths)
    common = set(paths[0]).intersection(*paths)
    return tuple(stage for stage in stages if stage not in every or stage in common)


def leading_to(stage: StageId, stages: Sequence[StageId], paths: Sequence[StagePath]) -> StagePath:
    """Of a cell's stages those without which `stage`, one of them, cannot run."""
    path = next((path for path in paths if stage in path), required(stages, paths))
    return path[: path.index(stage)]


def best(val_top1: Sequence[float | None]) -> int | None:
    """The number of the trial to choose: of the highest validation accuracy, the first of equals. None if no trial has one.

    A trial that failed has none (None); nor has one whose accuracy is NaN.
    """
    known = [(value, -number) for number, value in enumerate(val_top1) if value is not None and not math.isnan(value)]
    return -max(known)[1] if known else None
