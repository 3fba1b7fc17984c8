"""The records of cells and failures. Stdlib and pydantic alone: analysis reads these without torch."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

SCHEMA = 1


class Strict(BaseModel):
    """Unknown fields are errors: a record of another schema is listed by analysis, never half-read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Kind = TypeVar("Kind", bound=Strict)


class Failure(Strict):
    """Why a cell has no numbers."""

    kind: str  # exception class, "diverged", "killed"
    message: str
    stage: str
    traceback: str = ""
    host: str = ""  # SLURM's name of the node where it has one


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
    macs: int  # of the architecture before pruning; see `flops_convention`
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
    # From here on: None or empty in records older than the field.
    params_dense: int | None = None  # of the architecture before pruning; `params` are those of the saved network
    macs_structural: int | None = None  # of the saved network as it stands, zeros counted
    uncounted_share: float | None = None  # of all operations, at most
    speed_protocol: str = ""  # how speeds were measured
    clock_mhz: float | None = None  # of the device, right after
    latency_p90_ms: float | None = None
    latency_p99_ms: float | None = None
    dense_throughput_img_per_s: float | None = None  # of the dense network of the same shape, in turns with this one
    dense_latency_ms: float | None = None
    speedup_measured: float | None = None  # at `throughput_batch`: a ratio of one run
    speedup_latency: float | None = None  # at batch 1
    infer_j_per_img: float | None = None  # joules of the device, at `throughput_batch`
    train_gpu_h: float | None = None  # hours of a GPU, of the whole path; None on a CPU
    train_cpu_h: float | None = None  # hours of a core, of the whole path; None on a GPU
    train_peak_memory_bytes: int | None = None  # of a rank, the most of any stage
    train_j: float | None = None  # joules of the devices, of the whole path
    structure: dict[str, tuple[int, int]] = {}  # units kept and units before, of each group (layers.0.mixer.d_inner) that could lose some
    micro_batches: dict[str, int] = {}  # images of a forward pass, of the stages that did not fit into memory with what the recipe asks for


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


def now() -> str:
    """This moment, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class RecordError(ValueError):
    """A file that should be a record is none."""


def read_record(path: Path) -> Record:
    """The record in a file. Raises RecordError, which names the file, when it is torn or of another schema."""
    return read_as(Record, path)


def read_as(kind: type[Kind], path: Path) -> Kind:
    """What a JSON file holds. Raises RecordError."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        what = kind.__name__.lower()
        raise RecordError(f"{path} is not a {what} of this version ({error.errors()[0]['msg']}); remove it to run its part again: {error}") from error
