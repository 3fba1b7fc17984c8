"""Which job runs which stages: what launches write down when they submit jobs.

jobs/<n>/stages.json     {job: [stage, ...]}; a job is SLURM's id (17, 17_3), or <host>:<process> for a process of that machine
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.experiment.files import parsed, this_host, write_json
from jobs.experiment.ids import JobId, StageId
from jobs.experiment.run_folder import JOBS, SUBMITTED, RunFolder


@dataclass(frozen=True, kw_only=True)
class Submission:
    """One job, and the stages that it was given, in the sequence in which it runs them."""

    job: JobId
    stages: tuple[StageId, ...]
    folder: Path  # submitit's: logs, pickles

    @property
    def local(self) -> bool:
        """True for a process of some machine, False for a job of SLURM's."""
        return self.job.local

    def logs(self) -> list[Path]:
        """Its log files, one for each rank, by rank."""
        prefix = self.job.log_prefix
        paths = self.folder.glob(f"{prefix}_*_log.out")
        by_rank = {int(match[1]): path for path in paths if (match := re.fullmatch(rf"{re.escape(prefix)}_(\d+)_log\.out", path.name))}
        return [by_rank[rank] for rank in sorted(by_rank)]


def submissions(run: RunFolder) -> list[Submission]:
    """Every job of a run folder, those of the latest launch last."""
    folder = run.path / JOBS
    numbered = sorted((path for path in folder.iterdir() if path.name.isdigit()), key=lambda path: int(path.name)) if folder.is_dir() else []
    return [submission for path in numbered for submission in read_submitted(path)]


def read_submitted(folder: Path) -> list[Submission]:
    """The jobs of one of submitit's folders; empty where its launch is about to submit them, or was killed before it did,
    or where the file cannot be read.
    """
    try:
        stages_of = parsed((folder / SUBMITTED).read_bytes())
        return [Submission(job=JobId.parse(job), stages=tuple(stages), folder=folder) for job, stages in stages_of.items()]
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return []


def write_submitted(folder: Path, stages_of: Mapping[JobId, Sequence[StageId]]) -> None:
    """Writes down which job runs which stages, in the jobs' folder of submitit's."""
    write_json(folder / SUBMITTED, {str(job): list(stages) for job, stages in stages_of.items()})


def arrays(run: RunFolder) -> list[JobId]:
    """SLURM's ids of everything that was submitted: each array once, and each single job."""
    return list(dict.fromkeys(submission.job.array for submission in submissions(run) if not submission.local))


def local_job(pid: int | str) -> JobId:
    """The id of a process of this machine."""
    return JobId(number=int(pid), host=this_host())
