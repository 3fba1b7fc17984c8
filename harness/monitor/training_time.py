"""How long a run's stages have trained, and how long the rest will take."""

from collections import defaultdict
from collections.abc import Mapping

import msgspec

from harness.monitor.json_fields import read_fields
from harness.monitor.survey import Survey
from jobs.experiment.ids import StageId
from jobs.experiment.progress import StageProgress
from jobs.experiment.run_folder import EXPORT, RESULT, STAGES, RunFolder


class ResultFields(msgspec.Struct):
    """The part of a result.json that is read here."""

    train_s: float = 0.0


RESULT_FIELDS = msgspec.json.Decoder(ResultFields)


def trained_s(run: RunFolder, stage: StageId) -> float:
    """Seconds of training that a done stage took, over all restarts; 0 where its result cannot be read."""
    try:
        return read_fields(f"{run.path}/{STAGES}/{stage}/{EXPORT}/{RESULT}", RESULT_FIELDS).train_s
    except (OSError, ValueError):
        return 0.0


def left_s(surveyed: Survey, done_s: Mapping[StageId, float], progress: Mapping[StageId, StageProgress]) -> float | None:
    """Seconds of training left, if one stage ran after the other, at the speed of done stages of the same kind; None before a stage is done.

    done_s: seconds that done stages took. progress: of the stages at work.
    """
    epochs_of: dict[str, int] = defaultdict(int)
    seconds_of: dict[str, float] = defaultdict(float)
    stages = surveyed.index.stages
    for stage, seconds in done_s.items():
        for kind in (stages[stage].kind, ""):
            epochs_of[kind] += stages[stage].epochs
            seconds_of[kind] += seconds
    if not epochs_of[""]:
        return None
    total = 0.0
    for stage in needed(surveyed):
        kind = stages[stage].kind if epochs_of[stages[stage].kind] else ""
        epochs = stages[stage].epochs - (progress[stage].epoch if stage in progress else 0)
        total += max(0, epochs) * seconds_of[kind] / epochs_of[kind]
    return total


def needed(surveyed: Survey) -> set[StageId]:
    """Stages that are not done and on the path of a cell that neither failed nor is blocked."""
    paths = [entry.stages for cell, entry in surveyed.index.cells.items() if surveyed.states[cell] not in ("failed", "blocked")]
    return {stage for stages in paths for stage in stages if not surveyed.done(stage)}
