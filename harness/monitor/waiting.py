"""When the jobs that wait in SLURM's queue are expected to start."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime

from harness.text import clock_time, counted, duration
from jobs.cluster.slurm_jobs import JobState

REASONS = 3  # that are named


def waiting_note(jobs: Iterable[JobState], now: datetime) -> list[str]:
    """A line on the jobs that wait: why, and when SLURM expects to start the first and the last of them; no line if none waits.

    SLURM plans only the jobs that may start next, and plans again all the time: a job that waits for another one has no time yet.
    """
    waiting = [job for job in jobs if job.alive and not job.running and "held" not in job.reason.lower()]
    if not waiting:
        return []
    reasons = Counter(job.reason or "no reason given" for job in waiting).most_common(REASONS)
    count = f"{counted(len(waiting), 'job')} {'waits' if len(waiting) == 1 else 'wait'} in SLURM's queue"
    return [f"{count} ({', '.join(f'{reason} {number}' for reason, number in reasons)}); {expected(waiting, now)}"]


def expected(waiting: list[JobState], now: datetime) -> str:
    """When SLURM expects to start jobs that wait."""
    starts = sorted(job.expected_start for job in waiting if job.expected_start is not None)
    unplanned = len(waiting) - len(starts)
    if not starts:
        return "it expects no start yet"
    first, last = starts[0], starts[-1]
    text = f"expected start {moment(first, now)}" if first == last else f"expected starts from {moment(first, now)} to {moment(last, now)}"
    return text + (f", {unplanned} not planned yet" if unplanned else "")


def moment(start: datetime, now: datetime) -> str:
    """'21:30 (in 45:00)'; 'now' for a time that has passed."""
    left_s = (start - now).total_seconds()
    if left_s <= 0:
        return "now"
    return f"{clock_time(start, now)} (in {duration(left_s)})"
