"""What SLURM says of many jobs, from one squeue call and, where squeue has forgotten a job, at most one of sacct.

Right without sacct, as far as anybody can know.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from jobs.cluster.slurm import ON_NODES, PATIENCE_S, WAITING, SchedulerError, SchedulerSilent, ask, complain

NEVER = ("DependencyNeverSatisfied",)  # a pending job's reason: it will not start


@dataclass(frozen=True, kw_only=True)
class JobState:
    """One job, or one task of an array."""

    job: str  # 17, or 17_3
    state: str  # SLURM's word; "ENDED" where nobody remembers how
    nodes: str = ""  # SLURM's list, 'node[1-2]'
    reason: str = ""  # why it waits
    elapsed_s: int = 0  # of this run of it

    @property
    def running(self) -> bool:
        """True while it has nodes."""
        return self.state in ON_NODES

    @property
    def alive(self) -> bool:
        """True while SLURM runs it or will run it."""
        return self.running or (self.state in WAITING and self.reason not in NEVER)


def queue_state(
    jobs: Iterable[str],
    *,
    of_interest: Callable[[str], bool] = lambda job: True,
    patience_s: float = PATIENCE_S,
    say: Callable[[str], None] = complain,
) -> dict[str, JobState]:
    """The state of every one of `jobs`. sacct is asked when squeue does not list a job that is `of_interest`, the others are then ENDED.

    Raises SchedulerSilent where slurmctld does not answer, and SchedulerError where it refuses: never a guess.
    """
    wanted = list(dict.fromkeys(jobs))
    if not wanted:
        return {}
    found = listed(wanted, patience_s, say)
    missing = [job for job in wanted if job not in found]
    if any(of_interest(job) for job in missing):
        found |= accounted(missing)
    return {job: found.get(job) or JobState(job=job, state="ENDED") for job in wanted}


def listed(jobs: Collection[str], patience_s: float, say: Callable[[str], None]) -> dict[str, JobState]:
    """What squeue knows: all that wait or run, and what has ended in the last minutes."""
    arrays = ",".join(dict.fromkeys(job.split("_")[0] for job in jobs))
    try:
        text = ask("squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%M|%N|%r", f"--jobs={arrays}", patience_s=patience_s, say=say)
    except SchedulerSilent:
        raise
    except SchedulerError as error:
        if "nvalid job id" in str(error):  # said when the only job asked for is forgotten
            return {}
        raise
    wanted, found = set(jobs), {}
    for line in text.splitlines():
        job, state, elapsed, nodes, reason = line.split("|", 4)
        if job in wanted:
            found[job] = JobState(job=job, state=state, nodes=nodes, reason=reason, elapsed_s=seconds(elapsed))
    return found


def accounted(jobs: Collection[str]) -> dict[str, JobState]:
    """What the accounts know of jobs that squeue has forgotten; nothing where none are kept or they are out of reach."""
    arrays = ",".join(dict.fromkeys(job.split("_")[0] for job in jobs))
    command = ("sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,State,ElapsedRaw,NodeList", f"--jobs={arrays}")
    try:
        text = ask(*command, patience_s=0.0, say=lambda text: None)
    except SchedulerError:
        return {}
    wanted, found = set(jobs), {}
    for line in text.splitlines():
        named, state, elapsed, nodes = line.split("|", 3)
        word = state.split()[0] if state else "ENDED"  # 'CANCELLED by 1000'
        word = "ENDED" if word in ON_NODES | WAITING else word  # accounts lag behind; squeue, which is never late, has no such job
        for job in spelled_out(named):
            if job in wanted:
                nodes = "" if nodes == "None assigned" else nodes
                found[job] = JobState(job=job, state=word, nodes=nodes, elapsed_s=int(elapsed or 0))
    return found


def spelled_out(job: str) -> list[str]:
    """The tasks of '17_[0-3,7%2]'; any other name is one job."""
    match = re.fullmatch(r"(\d+)_\[([\d,-]+)(?:%\d+)?\]", job)
    if not match:
        return [job]
    found = []
    for part in match[2].split(","):
        first, _, last = part.partition("-")
        found += [f"{match[1]}_{task}" for task in range(int(first), int(last or first) + 1)]
    return found


def seconds(text: str) -> int:
    """SLURM's '1-02:03:04', '2:03' as seconds; 0 for INVALID."""
    days, _, clock = text.rpartition("-")
    if not re.fullmatch(r"[\d:]+", clock):
        return 0
    total = 0
    for part in clock.split(":"):
        total = 60 * total + int(part)
    return total + 86400 * int(days or 0)


def alive(states: Mapping[str, JobState]) -> frozenset[str]:
    """The jobs that SLURM runs or will run."""
    return frozenset(job for job, state in states.items() if state.alive)
