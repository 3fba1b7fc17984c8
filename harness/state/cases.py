"""The failures of a run folder: what stages wrote down themselves, and what SLURM says of jobs that ended before their stage did."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from harness.records import RecordError, RunFolder
from harness.run.triage import EXCERPT_LINES, STATES, Case, case_of, last_words, telling
from harness.state.survey import Survey

TAIL_BYTES = 20_000
VAGUE = ("FAILED", "CANCELLED", "ENDED")  # SLURM says these of jobs, too, whose memory or time was at an end
NEW_START = "Starting with "  # submitit's first line; a job that was queued again goes on in the same log


def cases(run: RunFolder, found: Survey) -> list[Case]:
    """One case a stage that stopped for good, or whose job ended before it did and nobody has taken up since."""
    waiting: dict[str, Counter[str]] = {}
    for cell, state in found.states.items():
        waiting.setdefault(state, Counter())[found.stands_at[cell]] += 1
    lost = waiting.get("failed", Counter()) + waiting.get("blocked", Counter())
    return [*failures(run, found, lost), *ended_jobs(found, waiting.get("open", Counter()))]


def failures(run: RunFolder, found: Survey, cells: Counter[str]) -> Iterator[Case]:
    """Stages with a failure of their own."""
    for stage, count in cells.items():
        try:
            failure = run.failure(stage)
        except RecordError as error:
            yield Case(what="torn file", place="", policy="never", stage=stage, cells=count, excerpt=(str(error),))
            continue
        if failure is not None:
            yield case_of(failure, count)


def ended_jobs(found: Survey, cells: Counter[str]) -> Iterator[Case]:
    """Stages whose SLURM job is over, without weights and without a failure."""
    for stage, count in cells.items():
        one = found.job_of.get(stage)
        if one is None or one.local or one.job not in found.jobs or found.under_way(one) != stage:
            continue
        job, logs = found.jobs[one.job], {tail(log): log for log in one.logs()}
        text = telling(list(logs))
        word = job.state if job.state not in VAGUE else last_words(text) or job.state
        excerpt = tuple(line for line in text.splitlines() if line.strip())[-EXCERPT_LINES:]
        policy = STATES.get(word, "again")
        yield Case(what=word, place="", policy=policy, stage=stage, cells=count, excerpt=excerpt, node=job.nodes, log=logs.get(text))


def tail(log: Path) -> str:
    """The end of a log, since its job was started last."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        return re.split(re.escape(NEW_START), file.read().decode(errors="replace"))[-1]
