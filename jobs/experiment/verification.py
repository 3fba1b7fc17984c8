"""What `harness.verify` leaves of a cell that was run again: a file beside the cells, which the report and `harness.check` read without torch.

<run>/verified/<cell>/<moment>.json    a Verification; it names no person and no machine unless the person asked for it
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

from jobs.experiment.ids import CellId
from jobs.experiment.records import Record, RecordError, Strict, read_as
from jobs.experiment.run_folder import VERIFIED

VERIFICATION_SCHEMA: Final = 1

Verdict = Literal["pass", "drift", "fail"]


class RunAgain(Strict):
    """A run of the cell, or of its row with another seed, where it was verified."""

    seed: int
    recorded_top1: float | None  # percent, of the record with this seed; None: no record has it
    top1: float  # percent, on the test set
    same_weights: bool | None  # whether the saved file is that of the record, bit for bit; None: no record has this seed, or it has no digest
    differing: list[str] = []  # numbers that differ from the record's, though the weights are the same


class Comparison(Strict):
    """The new runs against the recorded seeds, in points of top-1. Runs with the weights of their record are no second draw, and are not in it."""

    runs: int
    seeds: int
    difference: float  # mean of the runs - mean of the recorded seeds
    low: float  # lower end of the interval of the difference whose ends are each exceeded with probability 1 - level
    high: float
    p_worse: float  # one-sided: that the runs are not worse at all
    p_beyond: float  # one-sided: that the runs are not worse by more than the margin
    p_equivalent: float  # the larger p of two one-sided tests: that the runs differ by the margin or more
    spread_of: Literal["both", "seeds", "runs"]  # which samples the standard deviation is of


class Difference(Strict):
    """Something that is not the same in the record and where it was verified."""

    part: Literal["config", "code", "versions", "hardware", "data"]
    name: str
    recorded: str
    here: str


class Verification(Strict):
    """A cell that was run again, and how the runs compare with its record."""

    schema_version: Literal[1] = VERIFICATION_SCHEMA
    cell: CellId
    grid: str
    model: str  # label
    pruning: str  # label
    seed: int
    weights_sha256: str | None  # of the record that was verified
    recorded: dict[int, float]  # top-1 in percent by seed, of the records of the cell's row
    runs: list[RunAgain]  # the cell's own seed first
    comparison: Comparison | None  # None: every run has the weights of its record, or there is no spread to compare with
    margin: float  # points of top-1 within which runs count as equivalent
    level: float  # of every test
    verdict: Verdict
    reasons: list[str]  # sentences, the first of which gives the verdict
    code_of_record: bool  # whether the code of the recorded run ran, from its copy in the run folder or as the same code here
    differences: list[Difference]
    by: str | None = None  # a name, if one was given
    finished: str  # ISO 8601, UTC

    def fits(self, record: Record) -> bool:
        """True if this is about the numbers that the record has now."""
        top1 = record.metrics.top1 if record.metrics else None
        return self.cell == record.id and self.weights_sha256 == record.weights_sha256 and self.recorded.get(record.seed) == top1


def verified_dir(run: Path, cell: str) -> Path:
    """The folder with the verifications of a cell."""
    return run / VERIFIED / cell


def verifications(run: Path) -> Iterator[Verification]:
    """The verifications in a run folder that can be read, by cell and moment."""
    for path in sorted(run.glob(f"{VERIFIED}/*/*.json")):
        try:
            yield read_as(Verification, path)
        except (RecordError, OSError):
            continue
