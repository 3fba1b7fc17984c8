"""What a few real steps of a model took: the file that a job which times them leaves, and that later estimates read."""

from pathlib import Path

from jobs.experiment.files import write_json
from jobs.experiment.records import RecordError, Strict, read_as


class StepTimes(Strict):
    """Times of the dense network of one model, on one data set, under one recipe, on one kind of machine. Seconds are those of the whole job.

    Bytes are those of the real files that the job wrote.
    """

    model: str  # label
    cpu: str
    gpu: str | None  # None: it ran on CPUs
    ranks: int
    threads: int
    copies: int  # of this job that ran side by side, as jobs of the grid will
    measured: str  # ISO 8601, UTC
    start_s: float  # from the start of the process until its ranks had met, and libraries were loaded
    prepare_s: float  # network, loaders, engine, check of kernels
    first_step_s: float  # with what is compiled or allocated once
    steps: int  # behind step_s
    step_s: float
    step_joules: float | None  # of all ranks' devices; None: the machine does not measure energy
    no_energy: str  # why
    eval_image_s: float
    checkpoint_s: float
    export_s: float
    measure_s: float  # timing and counting a finished network, without its evaluation
    steps_per_epoch: int
    val_images: int
    test_images: int
    weights_bytes: int  # an export without masks
    mask_bytes: int
    checkpoint_bytes: int


def write_times(path: Path, times: StepTimes) -> None:
    """Writes the file, whole or not at all."""
    write_json(path, times.model_dump(mode="json"))


def read_times(path: Path) -> StepTimes | None:
    """The content of the file; None if there is none, or none of this version."""
    try:
        return read_as(StepTimes, path)
    except (FileNotFoundError, RecordError):
        return None
