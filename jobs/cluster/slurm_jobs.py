"""The states of many SLURM jobs, from one squeue call and, where squeue has forgotten a job, at most one call of sacct.

Correct without sacct too, as far as squeue remembers.
"""

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from jobs.cluster.slurm import ON_NODES, PATIENCE_S, WAITING, SchedulerError, SchedulerSilent, ask, complain
from jobs.experiment.ids import JobId

NEVER = ("DependencyNeverSatisfied",)  # a pending job's reason: it will not start


@dataclass(frozen=True, kw_only=True)
class JobState:
    """One job, or one task of an array."""

    job: JobId
    state: str  # SLURM's word; "ENDED" where SLURM has forgotten how
    nodes: str = ""  # SLURM's list, 'node[1-2]'
    reason: str = ""  # why it waits
    expected_start: datetime | None = None  # of a job that waits, in this machine's time; None: SLURM has not planned it yet
    elapsed_s: int = 0  # since its latest start

    @property
    def running(self) -> bool:
        """True while it has nodes."""
        return self.state in ON_NODES

    @property
    def alive(self) -> bool:
        """True while SLURM runs it or will run it."""
        return self.running or (self.state in WAITING and self.reason not in NEVER)


def queue_state(
    jobs: Iterable[JobId],
    *,
    patience_s: float = PATIENCE_S,
    say: Callable[[str], None] = complain,
) -> dict[JobId, JobState]:
    """The state of each of `jobs`. sacct is asked about jobs that squeue does not list; those that it does not know either are ENDED.

    Raises SchedulerSilent where slurmctld does not answer, and SchedulerError where it refuses: it never guesses.
    """
    wanted = list(dict.fromkeys(jobs))
    if not wanted:
        return {}
    states = listed(wanted, patience_s, say)
    missing = [job for job in wanted if job not in states]
    if missing:
        states |= accounted(missing)
    return {job: states.get(job) or JobState(job=job, state="ENDED") for job in wanted}


def listed(jobs: Collection[JobId], patience_s: float, say: Callable[[str], None]) -> dict[JobId, JobState]:
    """The states of the jobs that squeue knows: those that wait or run, and those that ended in the last minutes."""
    command = ("squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%M|%N|%S|%r", f"--jobs={arrays_of(jobs)}")
    try:
        text = ask(*command, patience_s=patience_s, say=say)
    except SchedulerSilent:
        raise
    except SchedulerError as error:
        if "nvalid job id" in str(error):  # squeue's error when it has forgotten the only job asked for
            return {}
        raise
    wanted, states = {str(job): job for job in jobs}, {}
    for line in text.splitlines():
        name, state, elapsed, nodes, start, reason = line.split("|", 5)
        if name in wanted:
            job, expected = wanted[name], moment(start) if state in WAITING else None
            states[job] = JobState(job=job, state=state, nodes=nodes, reason=reason, elapsed_s=seconds(elapsed), expected_start=expected)
    return states


def accounted(jobs: Collection[JobId]) -> dict[JobId, JobState]:
    """The states of jobs that the accounts know; empty where SLURM keeps no accounts or they are out of reach."""
    command = ("sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,State,ElapsedRaw,NodeList", f"--jobs={arrays_of(jobs)}")
    try:
        text = ask(*command, patience_s=0.0, say=lambda text: None)
    except SchedulerError:
        return {}
    wanted, states = {str(job): job for job in jobs}, {}
    for line in text.splitlines():
        name, state, elapsed, nodes = line.split("|", 3)
        word = state.split()[0] if state else "ENDED"  # 'CANCELLED by 1000'
        word = "ENDED" if word in ON_NODES | WAITING else word  # accounts lag behind; squeue, which is never late, has no such job
        nodes = "" if nodes == "None assigned" else nodes
        for job in (wanted[task] for task in spelled_out(name) if task in wanted):
            states[job] = JobState(job=job, state=word, nodes=nodes, elapsed_s=int(elapsed or 0))
    return states


def arrays_of(jobs: Iterable[JobId]) -> str:
    """The jobs as squeue and sacct take them, arrays whole: '17,18'."""
    return ",".join(dict.fromkeys(str(job.array) for job in jobs))


def spelled_out(name: str) -> list[str]:
    """The tasks that '17_[0-3,7%2]' stands for; any other name is one job."""
    match = re.fullmatch(r"(\d+)_\[([\d,-]+)(?:%\d+)?\]", name)
    if not match:
        return [name]
    tasks: list[str] = []
    for part in match[2].split(","):
        first, _, last = part.partition("-")
        tasks += [f"{match[1]}_{task}" for task in range(int(first), int(last or first) + 1)]
    return tasks


def seconds(text: str) -> int:
    """SLURM's '1-02:03:04', '2:03' as seconds; 0 for INVALID."""
    days, _, clock = text.rpartition("-")
    if not re.fullmatch(r"[\d:]+", clock):
        return 0
    total = 0
    for part in clock.split(":"):
        total = 60 * total + int(part)
    return total + 86400 * int(days or 0)


def moment(text: str) -> datetime | None:
    """SLURM's '2026-11-28T21:30:00', in this machine's time; None for N/A."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
