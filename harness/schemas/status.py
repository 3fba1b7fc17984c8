"""What `python -m harness.status --json` prints, and its schema."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from harness.schemas.values import Schema


VERSION: Final = 1  # a later one may add fields, and takes none away


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How many cells are in each state."""

    done: int = 0
    running: int = 0
    queued: int = 0
    blocked: int = 0
    failed: int = 0
    open: int = 0
    unknown: int = 0


@dataclass(frozen=True, kw_only=True)
class ModelStatus:
    """A model's cells."""

    model: str  # its label
    cells: Counts  # by state
    fraction: float  # of the epochs of all its stages, those that have been trained
    lost: float  # of them, those that no job will train, because a stage has failed


@dataclass(frozen=True, kw_only=True)
class StageStatus:
    """A stage that a job works on."""

    stage: str  # its id
    title: str  # model, stage and seed
    phase: Literal["starting", "training", "measuring"]  # measuring: it is done, and its cells are evaluated and profiled
    epoch: int | None  # epochs finished
    epochs: int  # of all
    fraction: float  # of its steps, those that are done
    loss: float | None  # of the last step
    val_top1: float | None  # percent, after the last finished epoch
    img_per_s: float | None  # training images a second
    left_s: float | None  # seconds to go
    silent_s: float | None  # seconds since it last wrote its progress
    job: str | None  # SLURM's id, or host:process
    nodes: str  # on which it runs


@dataclass(frozen=True, kw_only=True)
class FailureStatus:
    """Failures of one kind at one line of the code."""

    kind: str  # the exception's class, diverged, killed, or SLURM's state
    location: str  # file, line and function; empty where there is none
    policy: Literal["halve", "elsewhere", "again", "never"]  # what the next launch does: never needs --retry-failed
    cells: int  # that wait for its stages
    stages: Sequence[str]  # ids
    nodes: Sequence[str]  # on which they failed
    excerpt: Sequence[str]  # the last lines of the first one


@dataclass(frozen=True, kw_only=True)
class Status:
    """A run at one moment."""

    version: int  # of this format
    grid: str  # its name
    folder: str  # the run folder
    time: str  # ISO 8601, UTC
    result: Literal["done", "failed", "under way", "open", "unknown"]  # what the exit code says too
    cells: Counts  # by state
    cell_states: Mapping[str, Literal["done", "running", "queued", "blocked", "failed", "open", "unknown"]]  # by the cell's id
    stages: int  # of the plan
    stages_done: int  # of these
    trained_s: float  # seconds of training used
    left_s: float | None  # seconds until all stages should have trained, with as many at a time as now; null before anything was measured
    expected_end: str | None  # the same as a time, ISO 8601, UTC
    models: Sequence[ModelStatus]  # in the sequence of the grid
    at_work: Sequence[StageStatus]  # stages that jobs work on
    failures: Sequence[FailureStatus]  # the kind for which most cells wait first
    notes: Sequence[str]  # sentences for people: nodes left out, smaller batches, held jobs

    def to_json(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def status_schema() -> "Schema":
    """The schema, with the comments of the fields as their descriptions."""
    from pydantic import TypeAdapter

    from harness.schemas.record import described

    schema = TypeAdapter(Status).json_schema(mode="serialization")
    return described(schema, Status, (Counts, ModelStatus, StageStatus, FailureStatus)) | {"title": "what `python -m harness.status --json` prints"}
