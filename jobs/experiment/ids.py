"""The ids of cells, stages and jobs."""

from dataclasses import dataclass
from typing import NewType

CellId = NewType("CellId", str)
StageId = NewType("StageId", str)


@dataclass(frozen=True, order=True)
class JobId:
    """A job: SLURM's 17, or 17_3 in an array; or a process of one machine, `host:4711`. `str()` is how files and commands write it."""

    number: int  # SLURM's job or array, or the process
    task: int | None = None  # within an array
    host: str | None = None  # of a local job; None: SLURM's

    def __str__(self) -> str:
        if self.host is not None:
            return f"{self.host}:{self.number}"
        return f"{self.number}" if self.task is None else f"{self.number}_{self.task}"

    @classmethod
    def parse(cls, text: str) -> "JobId":
        """The id that a file or SLURM writes. ValueError: it is none."""
        host, colon, rest = text.rpartition(":")
        number, underscore, task = rest.partition("_")
        return cls(number=int(number), task=int(task) if underscore else None, host=host if colon else None)

    @property
    def local(self) -> bool:
        """True for a process of some machine, False for SLURM's."""
        return self.host is not None

    @property
    def array(self) -> "JobId":
        """The whole array that a SLURM job is a task of: 17 of 17_3."""
        return JobId(number=self.number, host=self.host)

    @property
    def log_prefix(self) -> str:
        """How submitit begins the names of the job's files: 17_3, or the process."""
        return str(self.number) if self.local else str(self)
