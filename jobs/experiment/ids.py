"""The ids of cells, stages and jobs."""

from dataclasses import dataclass
from functools import total_ordering
from typing import NewType

CellId = NewType("CellId", str)
StageId = NewType("StageId", str)


@total_ordering
@dataclass(frozen=True)
class JobId:
    """A job: SLURM's 17, or 17_3 in an array; or a process of one machine, `host:4711`. `str()` is how files and commands write it."""

    number: int  # SLURM's job or array, or the process
    task: int | None = None  # within an array
    host: str | None = None  # of a local job; None: SLURM's

    def __str__(self) -> str:
        if self.host is not None:
            return f"{self.host}:{self.number}"
        return f"{self.number}" if self.task is None else f"{self.number}_{self.task}"

    def __lt__(self, other: "JobId") -> bool:
        """By machine (SLURM first), number and task."""
        return self._rank < other._rank

    @property
    def _rank(self) -> tuple[str, int, int]:
        return self.host or "", self.number, -1 if self.task is None else self.task

    @classmethod
    def parse(cls, text: str) -> "JobId":
        """The id that a file or SLURM writes. ValueError: the text is no job id."""
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
        """The beginning of the names that submitit gives to the job's files: 17_3, or the process."""
        return str(self.number) if self.local else str(self)
