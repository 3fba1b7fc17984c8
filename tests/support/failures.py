"""A failure and a record of a cell that failed."""

from jobs.experiment.ids import StageId
from jobs.experiment.records import Failure, Record


def failure(stage: str = "s1", message: str = "first") -> Failure:
    """A failure of a stage."""
    return Failure(kind="ValueError", message=message, stage=StageId(stage))


def failed_record(cell: str = "c1") -> Record:
    """The record of a cell that failed."""
    surroundings = {"commit": None, "dirty": None, "python": "3.11", "versions": {}, "host": "h", "cpu": "c", "gpu": None, "ranks": 1, "threads": 1}
    return Record(
        id=cell, grid="g", model="m", pruning="dense", seed=0, spec={}, stages=["s1"], status="failed", failure=failure(),
        environment={**surroundings, "loader": "ffcv", "scan": "cpu", "data_sha256": ""}, started="t", finished="t",
    )  # fmt: skip
