"""How long a run's stages have trained, and how long the rest will take."""

from collections import defaultdict
from collections.abc import Mapping

import msgspec

from harness.monitor.json_fields import read_fields
from harness.monitor.survey import Survey, open_stages
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


def until_end_s(surveyed: Survey, done_s: Mapping[StageId, float], progress: Mapping[StageId, StageProgress], at_a_time: int) -> float | None:
    """Seconds until all stages have trained, with so many at a time; None if none is, or before anything was measured.

    It is at least the time of the cell whose stages take longest, for they run one after the other.
    """
    seconds = seconds_of_stages(surveyed, done_s, progress)
    if seconds is None or at_a_time < 1:
        return None
    lines = (path for entry in surveyed.index.cells.values() for path in entry.trials or (entry.stages,))  # trials run beside each other
    paths = (sum(seconds.get(stage, 0.0) for stage in path) for path in lines)
    return max(sum(seconds.values()) / at_a_time, max(paths, default=0.0))


def seconds_of_stages(surveyed: Survey, done_s: Mapping[StageId, float], progress: Mapping[StageId, StageProgress]) -> dict[StageId, float] | None:
    """Seconds that each stage still has to train: as its own steps so far say, else as the epochs measured of its kind, else of all kinds.

    None before anything was measured. done_s: seconds that done stages took. progress: of the stages at work.
    """
    stages = surveyed.index.stages
    epochs_of: dict[str, float] = defaultdict(float)
    seconds_of: dict[str, float] = defaultdict(float)
    trained = {stage: (float(stages[stage].epochs), seconds) for stage, seconds in done_s.items()}
    trained |= {stage: (stages[stage].epochs * now.step / now.steps, now.spent_s) for stage, now in progress.items() if now.steps and now.spent_s}
    for stage, (epochs, seconds) in trained.items():
        for kind in (stages[stage].kind, ""):
            epochs_of[kind] += epochs
            seconds_of[kind] += seconds
    if not epochs_of[""]:
        return None
    left = {}
    for stage in needed(surveyed):
        kind = stages[stage].kind if epochs_of[stages[stage].kind] else ""
        now = progress.get(stage)
        left[stage] = now.eta_s if now is not None and now.eta_s is not None else stages[stage].epochs * seconds_of[kind] / epochs_of[kind]
    return left


def needed(surveyed: Survey) -> set[StageId]:
    """Stages that are not done and on the path of a cell that neither failed nor is blocked."""
    paths = [open_stages(entry, surveyed.files) for cell, entry in surveyed.index.cells.items() if surveyed.states[cell] not in ("failed", "blocked")]
    return {stage for stages in paths for stage in stages}
