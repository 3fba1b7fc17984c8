"""What a watching status remembers between two looks, so that it asks SLURM and the file system only for what may be new.

SLURM is asked once in ASK_EVERY_S, while a job has work left, and at once about the jobs of a new launch. A folder is listed again when it has
changed.
"""

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from harness.monitor.survey import names_in
from jobs.cluster.slurm import ON_NODES, WAITING, SchedulerError
from jobs.cluster.slurm_jobs import JobState, queue_state
from jobs.experiment.ids import JobId

ASK_EVERY_S = 30.0  # between two questions to SLURM
SETTLING_NS = 2_000_000_000  # a folder that changed so recently may change again within a tick of its file system's clock


@dataclass
class Memory:
    """The last answers of SLURM, and the names in folders."""

    clock: Callable[[], float] = time.monotonic
    folders: dict[str, tuple[int, list[str]]] = field(default_factory=dict)  # time of change in ns, and names
    states: dict[JobId, JobState] = field(default_factory=dict)  # SLURM's last answer
    gone: dict[JobId, JobState] = field(default_factory=dict)  # jobs that had ended in two answers: SLURM is not asked about them any more
    silent: SchedulerError | None = None  # why there was no last answer
    due: float = float("-inf")  # when SLURM may be asked again

    def names(self, folder: str) -> list[str]:
        """The names in a folder, as `names_in` gives them."""
        try:
            changed = os.stat(folder).st_mtime_ns
        except (FileNotFoundError, NotADirectoryError):
            return []
        known = self.folders.get(folder)
        if known is not None and known[0] == changed:
            return known[1]
        names = names_in(folder)
        if changed < time.time_ns() - SETTLING_NS:
            self.folders[folder] = changed, names
        return names

    def queue_state(self, jobs: list[JobId]) -> dict[JobId, JobState]:
        """The state of each job, as `jobs.cluster.slurm_jobs.queue_state` gives it, at most ASK_EVERY_S old. Raises SchedulerError.

        A SLURM that does not answer is asked again when it is due.
        """
        left = [job for job in jobs if job not in self.gone]
        new = self.silent is None and any(job not in self.states for job in left)
        if left and (new or self.clock() >= self.due):
            self.ask(left)
            self.due = self.clock() + ASK_EVERY_S
        if left and self.silent is not None:
            raise self.silent
        return {job: self.gone.get(job) or self.states[job] for job in jobs}

    def ask(self, jobs: Iterable[JobId]) -> None:
        """Asks SLURM once."""
        try:
            answer, self.silent = queue_state(jobs, patience_s=0.0, say=lambda text: None), None
        except SchedulerError as error:
            self.silent = error
            return
        self.gone |= {job: state for job, state in answer.items() if has_ended(state) and job in self.states and has_ended(self.states[job])}
        self.states = answer


def has_ended(state: JobState) -> bool:
    """True for a job that neither waits nor runs."""
    return state.state not in ON_NODES | WAITING
