"""What a finished cell leaves, and where. Stdlib and pydantic alone (and `jobs.files`, stdlib too): analysis reads this without torch.

    runs/<grid>/
        grid.yaml  plan.json  code.json  code.diff     the grid as launched, what it expands to, the code that ran it
        stages/<id>/  spec.json  metrics.jsonl  progress.json  checkpoints/  export/  done.json | failure.json
        cells/<id>/   record.json  model.safetensors  masks.safetensors
        jobs/<n>/     submitit's folder: logs
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from jobs.files import write_json

SCHEMA = 1


class Strict(BaseModel):
    """Unknown fields are errors: a record of another schema is listed by analysis, never half-read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Failure(Strict):
    """Why a cell has no numbers."""

    kind: str  # exception class, "diverged", "killed"
    message: str
    stage: str
    traceback: str = ""


class Metrics(Strict):
    """Every number of a cell. Units stand in the names; None where nothing measured it, with the reason in `notes`."""

    top1: float  # percent, test set, of the saved file loaded again
    top5: float | None
    test_loss: float
    test_samples: int
    val_top1: float
    train_loss: float
    params: int
    params_nonzero: int
    sparsity_prunable: float  # share of zeros among prunable weights
    sparsity_all: float  # share of zeros among all parameters
    layers: dict[str, float]  # sparsity of each prunable parameter
    collapsed: list[str]  # prunable parameters with no weight left
    macs: int  # fvcore, dense; see `flops_convention`
    macs_nonzero: int  # theoretical: a weight that is zero costs nothing
    flops_convention: str
    uncounted_ops: dict[str, int]
    throughput_img_per_s: float
    latency_ms: float  # batch 1
    throughput_batch: int
    peak_memory_bytes: int
    file_bytes: int
    epochs: int  # of the whole path, shared stages included
    train_s: float  # of the whole path, shared stages included
    train_img_per_s: float
    notes: list[str] = []


class Environment(Strict):
    """Where and with what a cell ran."""

    commit: str | None
    dirty: bool | None
    python: str
    versions: dict[str, str]
    host: str
    cpu: str
    gpu: str | None
    ranks: int
    threads: int
    loader: str  # ffcv | torch, with its version
    scan: str  # backend that ran
    data_sha256: str  # of the .beton files, or of the arrays behind the torch loader


class Record(Strict):
    """A cell: what was asked, what came out, where it ran."""

    schema_version: Literal[1] = SCHEMA
    id: str
    grid: str
    model: str  # label
    pruning: str  # label
    seed: int
    spec: dict[str, Any]  # everything needed to run it again: model, pruning, data, recipe, seed, with all fields
    stages: list[str]
    status: Literal["done", "failed"]
    failure: Failure | None = None
    metrics: Metrics | None = None
    environment: Environment
    weights_sha256: str | None = None
    started: str  # ISO 8601, UTC
    finished: str


def write_record(run: Path, record: Record) -> Path:
    """The record's path, written whole or not at all."""
    path = run / "cells" / record.id / "record.json"
    write_json(path, record.model_dump(mode="json"))
    return path


def read_record(path: Path) -> Record:
    """The record in a file. Raises pydantic.ValidationError (a ValueError) when it is torn or of another schema."""
    return Record.model_validate_json(path.read_bytes())
