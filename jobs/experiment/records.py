"""The records of cells and failures. Analysis reads them without torch.

Pydantic checks these files, and msgspec structures made from the same classes (`analysis.decoding`) read many of them fast: programs write them, and
a version may find files of another. Settings that a person writes, and the `spec` of a record once it is to run again, become typed settings by
`models.typed`, which answers with advice.
"""

from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from jobs.experiment.files import well_formed
from jobs.experiment.ids import CellId, StageId

SCHEMA: Final = 1


class Strict(BaseModel):
    """A file of which an unknown field is an error: analysis lists a record of another schema, and never reads half of one."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Kind = TypeVar("Kind", bound=Strict)


class Failure(Strict):
    """Why a cell has no numbers."""

    kind: str  # exception class, "diverged", "killed"
    message: str
    stage: StageId
    traceback: str = ""
    host: str = ""  # SLURM's name of the node, or the machine's own


class Metrics(Strict):
    """Every number of a cell. Units are in the names. None: not measured, for a reason that `notes` gives."""

    top1: float  # percent, on the test set, of the saved file loaded again
    top5: float | None
    test_loss: float
    test_samples: int
    val_top1: float
    train_loss: float | None  # None: nothing was trained
    params: int
    params_nonzero: int
    sparsity_prunable: float  # fraction of zeros among prunable weights
    sparsity_all: float  # fraction of zeros among all parameters
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
    # The fields below are None or empty in records that are older than the field.
    params_dense: int | None = None  # of the architecture before pruning; `params` is the saved network's
    macs_structural: int | None = None  # of the saved network, zeros counted
    uncounted_share: float | None = None  # fraction of all operations, an upper bound
    speed_protocol: str = ""  # how speeds were measured
    clock_mhz: float | None = None  # of the device, right after
    latency_p90_ms: float | None = None
    latency_p99_ms: float | None = None
    dense_throughput_img_per_s: float | None = None  # of the dense network of the same shape, measured in turns with this one
    dense_latency_ms: float | None = None
    speedup_measured: float | None = None  # at `throughput_batch`: a ratio of one run
    speedup_latency: float | None = None  # at batch 1
    infer_j_per_img: float | None = None  # joules of the device, at `throughput_batch`
    train_gpu_h: float | None = None  # hours of a GPU, of the whole path; None on a CPU
    train_cpu_h: float | None = None  # hours of a core, of the whole path; None on a GPU
    train_peak_memory_bytes: int | None = None  # of a rank, the largest of all stages
    train_j: float | None = None  # joules of the devices, of the whole path
    val_top1_pruned: float | None = None  # of the trained network right after its pruning; None: it was pruned while it trained, in rounds, or never
    structure: dict[str, tuple[int, int]] = {}  # units kept and units before, of each group (layers.0.mixer.d_inner) that can lose units
    speeds: dict[str, dict[str, float | None]] = {}  # by further speed protocols, the fields of this class that are timed
    published_top1: float | None = None  # percent, of its authors, if the cell is an official checkpoint as it is: see `jobs.experiment.published`
    published_top5: float | None = None
    published_source: str | None = None
    micro_batches: dict[str, int] = {}  # images of a forward pass, by stage, for stages in which the recipe's number did not fit into memory


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
    code: str | None = None  # the id of the code, a copy of which the run folder keeps; None in older records
    container: str | None = None  # the runtime, the image, and the SHA-256 of its file; None: no container, or an older record
    tf32: bool | None = None  # whether fp32 products and convolutions of the GPU used TF32; None: on a CPU, or not known


class TrialRecord(Strict):
    """One trial of a tuned cell. It has no test accuracy: the test set is read by the chosen one alone."""

    values: dict[str, Any]  # of the tuned keys of the recipe
    val_top1: float | None  # percent; None: it failed
    failure: str = ""  # why it has no accuracy: the kind of the failure
    stages: list[StageId]


class Tuning(Strict):
    """The trials of a tuned cell, and the choice among them by validation accuracy. `spec.tune` has the space and the budget."""

    trials: list[TrialRecord]  # in the sequence of the space; points that lead to the same stages are one trial
    chosen: int  # its position among them: the highest val_top1, the first of equals
    train_s: float  # of the stages of all trials that ended well, shared stages once


class Record(Strict):
    """A cell that has ended: its settings, its numbers, and the machine that it ran on."""

    schema_version: Literal[1] = SCHEMA
    id: CellId
    grid: str
    model: str  # label
    pruning: str  # label
    seed: int
    spec: dict[str, Any]  # jobs.experiment.cell.CellJson, which Cell.from_json reads; as it stands, because other versions have other fields
    stages: list[StageId]
    status: Literal["done", "failed"]
    failure: Failure | None = None
    metrics: Metrics | None = None
    environment: Environment
    weights_sha256: str | None = None
    tuning: Tuning | None = None  # None: the cell was not tuned, or has failed
    started: str  # ISO 8601, UTC
    finished: str


LOSSES = ("test_loss", "train_loss")  # they may overflow where the accuracy is still a number, and no table is ranked by them


def not_finite(metrics: Metrics) -> list[str]:
    """The metrics that are no finite numbers, in words; losses may be infinite. No mean can be taken of the others, and no page be written."""
    values = {**dict(metrics), **{f"layers of {name}": part for name, part in metrics.layers.items()}}
    infinite = {name: value for name, value in values.items() if isinstance(value, float) and not isfinite(value) and name not in LOSSES}
    return [f"{name} is {value}, not a finite number" for name, value in infinite.items()]


def trained_recipe(record: Record) -> dict[str, Any]:
    """The recipe of the network in JSON form: that of the cell, with the values of the chosen trial."""
    chosen = record.tuning.trials[record.tuning.chosen].values if record.tuning else {}
    return {**record.spec["recipe"], **chosen}


def now() -> str:
    """This moment, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class RecordError(ValueError):
    """A file is not the record that it should be."""


def unreadable_failure(stage: StageId, error: RecordError) -> Failure:
    """The failure that stands for the failure of a stage whose file cannot be read."""
    return Failure(kind="torn file", message=str(error).splitlines()[0], stage=stage)


def read_record(path: Path) -> Record:
    """The record in a file. Raises RecordError, which names the file, if it is incomplete or of another schema."""
    return read_as(Record, path)


def read_as(kind: type[Kind], path: Path) -> Kind:
    """The content of a JSON file, also one of an older version with text in it that is no UTF-8. Raises RecordError."""
    content = path.read_bytes()
    try:
        return kind.model_validate_json(content)
    except ValidationError:
        pass
    try:
        return kind.model_validate_json(well_formed(content))
    except ValidationError as error:
        name = kind.__name__.lower()
        raise RecordError(f"{path} is not a {name} of this version ({error.errors()[0]['msg']}); remove it to run its part again: {error}") from error
