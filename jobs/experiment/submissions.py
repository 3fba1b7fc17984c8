"""Which job runs which stages: what launches wrote down when they started jobs.

jobs/<n>/stages.json     {job: [stage, ...]}; a job is SLURM's id (17, 17_3), or <host>:<process> for one on that machine
"""

import json
import re
import socket
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from jobs.experiment.run_folder import JOBS, SUBMITTED, RunFolder


@dataclass(frozen=True)
class Submission:
    """One job, and the stages that it was handed, in its order."""

    job: str
    stages: tuple[str, ...]
    folder: Path  # submitit's: logs, pickles

    @property
    def local(self) -> bool:
        """True for a process of some machine, False for SLURM's."""
        return ":" in self.job

    @cached_property
    def host(self) -> str:
        """The machine of a local job."""
        return self.job.rpartition(":")[0]

    @property
    def array(self) -> str:
        """What SLURM calls the whole array: 17 of 17_3."""
        return self.job.split("_")[0]

    def logs(self) -> list[Path]:
        """Its log files, one a rank, by rank."""
        found = self.folder.glob(f"{self.job.rpartition(':')[2]}_*_log.out")
        named = [(re.fullmatch(rf"{re.escape(self.job.rpartition(':')[2])}_(\d+)_log\.out", path.name), path) for path in found]
        return [path for _, path in sorted((int(match[1]), path) for match, path in named if match)]


def submissions(run: RunFolder) -> list[Submission]:
    """Every job of a run folder, the latest launch last."""
    folder = run.path / JOBS
    numbered = sorted((path for path in folder.iterdir() if path.name.isdigit()), key=lambda path: int(path.name)) if folder.is_dir() else []
    found = []
    for path in numbered:
        try:
            listed = json.loads((path / SUBMITTED).read_text())
        except FileNotFoundError:  # of a launch that is just starting it, or was killed before it did
            continue
        found += [Submission(job, tuple(stages), path) for job, stages in listed.items()]
    return found


def arrays(run: RunFolder) -> list[str]:
    """SLURM's ids of all that was submitted, arrays as one."""
    return list(dict.fromkeys(one.array for one in submissions(run) if not one.local))


def local_name(pid: int | str) -> str:
    """What a process of this machine is called in stages.json."""
    return f"{socket.gethostname()}:{pid}"
