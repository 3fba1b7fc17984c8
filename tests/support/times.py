"""Times as a job that timed a model leaves them, made by hand."""

from collections.abc import Iterable
from pathlib import Path

from harness.cost.knowledge import Knowledge
from harness.cost.timing import kept_path
from harness.cost.work import key_of, shape_of
from harness.grid.read import Grid
from jobs.experiment.step_times import StepTimes, write_times

TIMES = StepTimes(
    model="vim_micro", cpu="a CPU", gpu=None, ranks=1, threads=1, copies=1, measured="2026-11-28T20:00:00+00:00", start_s=10.0, prepare_s=2.0,
    first_step_s=1.0, steps=20, step_s=0.5, step_joules=None, no_energy="no counters", eval_image_s=0.01, checkpoint_s=0.25, export_s=0.125,
    measure_s=4.0, steps_per_epoch=40, val_images=100, test_images=300, weights_bytes=1000, mask_bytes=100, checkpoint_bytes=4000,
)  # fmt: skip


def known(grid: Grid, times: StepTimes = TIMES) -> Knowledge:
    """The same times for every model of a grid."""
    shape = shape_of(grid.cluster)
    return Knowledge(times={key_of(cell, shape): times for cell in grid.cells})


def keep_times(grid: Grid, runs: Path, times: StepTimes = TIMES, models: Iterable[str] | None = None) -> None:
    """Leaves times of a grid's models, as a previous command would have."""
    shape = shape_of(grid.cluster)
    for cell in grid.cells:
        if models is None or cell.model.label in models:
            own = times.model_copy(update={"model": cell.model.label})
            write_times(kept_path(runs, key_of(cell, shape), grid.cluster), own)
