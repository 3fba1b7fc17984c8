"""The status for scripts: `harness.schemas.status.Status`, from the facts that the screen shows too."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

from harness.monitor.incidents import IncidentGroup
from harness.monitor.run_status import ModelProgress, RunStatus, fraction_of
from harness.monitor.status_view import notes
from harness.monitor.survey import State, heard_s
from harness.schemas.status import VERSION, Counts, FailureStatus, ModelStatus, StageStatus, Status
from jobs.experiment.ids import StageId

Result = Literal["done", "failed", "under way", "open", "unknown"]


def result_of(status: RunStatus) -> Result:
    """How a run stands, in a word: something runs or waits; SLURM does not answer; else cells are open; else some have failed; else all are done."""
    counts = status.counts
    if counts.get("running") or counts.get("queued"):
        return "under way"
    if counts.get("unknown"):
        return "unknown"
    if counts.get("open"):
        return "open"
    return "failed" if counts.get("failed") or counts.get("blocked") else "done"


def status_json(status: RunStatus) -> Status:
    """The status for scripts."""
    surveyed = status.surveyed
    return Status(
        version=VERSION,
        grid=surveyed.index.grid,
        folder=str(surveyed.run.path),
        time=utc(status.time),
        result=result_of(status),
        cells=counts_json(status.counts),
        cell_states={str(cell): state for cell, state in surveyed.states.items()},
        stages=len(surveyed.index.stages),
        stages_done=status.stages_done,
        trained_s=status.trained_s,
        left_s=status.left_s,
        expected_end=None if status.end is None else utc(status.end),
        models=[model_json(model) for model in status.models],
        at_work=[stage_json(status, stage) for stage in status.at_work],
        failures=[failure_json(group) for group in status.groups],
        notes=notes(surveyed),
    )


def counts_json(counts: Mapping[State, int]) -> Counts:
    """Cells by state."""
    return Counts(**{str(state): count for state, count in counts.items()})


def utc(seconds: float) -> str:
    """A time as ISO 8601, in UTC, to the second."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def model_json(model: ModelProgress) -> ModelStatus:
    """A model."""
    lost = model.lost / model.epochs if model.epochs else 0.0
    return ModelStatus(model=model.model, cells=counts_json(model.cells), fraction=model.fraction, lost=lost)


def stage_json(status: RunStatus, stage: StageId) -> StageStatus:
    """A stage at work."""
    surveyed, now = status.surveyed, status.progress.get(stage)
    entry, job, silent_s = surveyed.index.stages[stage], surveyed.alive(stage), heard_s(surveyed.run, stage)
    return StageStatus(
        stage=stage,
        title=entry.title,
        phase="measuring" if surveyed.done(stage) else "training" if now else "starting",
        epoch=now.epoch if now else None,
        epochs=now.epochs if now else entry.epochs,
        fraction=fraction_of(stage, surveyed, status.progress),
        loss=now.loss if now else None,
        val_top1=now.val_top1 if now else None,
        img_per_s=now.img_per_s if now else None,
        left_s=now.eta_s if now else None,
        silent_s=silent_s if silent_s < float("inf") else None,
        job=str(job.job) if job else None,
        nodes=job.nodes if job else "",
    )


def failure_json(group: IncidentGroup) -> FailureStatus:
    """Failures of one kind."""
    return FailureStatus(
        kind=group.kind,
        location=group.location,
        policy=group.policy,
        cells=group.cells,
        stages=[incident.stage for incident in group.incidents],
        nodes=sorted({incident.node for incident in group.incidents if incident.node}),
        excerpt=list(group.incidents[0].excerpt),
    )
