"""How far a stage in training has come: progress.json, written by its job, read by status and by the display of a local launch."""

from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from jobs.experiment.files import parsed, write_json
from jobs.experiment.run_folder import PROGRESS


@dataclass(frozen=True, kw_only=True)
class StageProgress:
    """Where a stage stands."""

    epoch: int  # epochs finished
    epochs: int
    step: int  # optimizer steps finished
    steps: int
    loss: float | None  # of the last step
    img_per_s: float | None
    eta_s: float | None  # seconds to go
    val_top1: float | None  # percent, after the last finished epoch
    time: float  # Unix seconds

    @property
    def spent_s(self) -> float:
        """Seconds of training so far, at the speed that `eta_s` assumes; 0 before the first step and after the last."""
        steps_left = self.steps - self.step
        return self.eta_s * self.step / steps_left if self.eta_s and steps_left else 0.0


def write_progress(path: Path, progress: StageProgress) -> None:
    """Writes a progress.json whole or not at all."""
    write_json(path, asdict(progress))


def read_progress(folder: Path) -> StageProgress | None:
    """The progress of the stage in `folder`; None before its first step, or where the file cannot be read."""
    try:
        return msgspec.convert(parsed((folder / PROGRESS).read_bytes()), StageProgress)
    except (OSError, ValueError, msgspec.ValidationError):
        return None
