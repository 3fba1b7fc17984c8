"""The failures of a run folder: what stages wrote down themselves, and what SLURM says of jobs that ended before their stage did."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.monitor.survey import Survey
from jobs.experiment.records import Failure, RecordError
from jobs.experiment.run_folder import RunFolder
from jobs.recovery.triage import STATES, Policy, last_words, telling

ROOT = Path(__file__).resolve().parents[2]
FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)')
EXCERPT_LINES = 6
TAIL_BYTES = 20_000
VAGUE = ("FAILED", "CANCELLED", "ENDED")  # SLURM says these of jobs, too, whose memory or time was at an end
NEW_START = "Starting with "  # submitit's first line; a job that was queued again goes on in the same log


@dataclass(frozen=True, kw_only=True)
class Incident:
    """One stage that stopped: how, where, and how many cells wait for it."""

    what: str  # exception class, "diverged", "killed", or SLURM's state
    place: str  # in our code, 'jobs/data/prepare.py:120 in prepare'; empty where SLURM ended the job
    policy: Policy
    stage: str
    cells: int
    excerpt: tuple[str, ...] = ()
    node: str = ""
    log: Path | None = None


@dataclass(frozen=True, kw_only=True)
class IncidentGroup:
    """Cases of one signature."""

    what: str
    place: str
    policy: Policy
    cases: tuple[Incident, ...]

    @property
    def cells(self) -> int:
        """How many cells wait for its stages."""
        return sum(case.cells for case in self.cases)


def incident_of(failure: Failure, cells: int, log: Path | None = None) -> Incident:
    """The case of a stage that failed with an exception of its own."""
    words = failure.traceback.rstrip().splitlines() or failure.message.splitlines()
    return Incident(
        what=failure.kind,
        place=place_of(failure.traceback),
        policy="never",  # what can be retried was, before this was written
        stage=failure.stage,
        cells=cells,
        excerpt=tuple(words[-EXCERPT_LINES:]),
        node=failure.host,
        log=log,
    )


def place_of(traceback: str) -> str:
    """The last frame of a traceback in our own code, or the last one where there is none of ours; empty without frames."""
    frames = list(FRAME.finditer(traceback))
    ours = [frame for frame in frames if Path(frame["file"]).is_relative_to(ROOT) and "site-packages" not in frame["file"]]
    if not frames:
        return ""
    frame = (ours or frames)[-1]
    file = Path(frame["file"])
    shown = file.relative_to(ROOT) if ours else Path(*file.parts[-2:])
    return f"{shown}:{frame['line']} in {frame['function']}"


def grouped(cases: Iterable[Incident]) -> list[IncidentGroup]:
    """Cases by signature and policy, the group that most cells wait for first."""
    found: dict[tuple[str, str, Policy], list[Incident]] = {}
    for case in cases:
        found.setdefault((case.what, case.place, case.policy), []).append(case)
    groups = [IncidentGroup(what=what, place=place, policy=policy, cases=tuple(members)) for (what, place, policy), members in found.items()]
    return sorted(groups, key=lambda group: (-group.cells, group.what, group.place))


def remedy(group: IncidentGroup, launch: str) -> str:
    """What happens to a group's cells, and the command that does it. `launch`: the command that launches their grid."""
    return {
        "halve": f"retried with half the micro-batch, the global batch kept: {launch}",
        "elsewhere": f"retried on other nodes: {launch}",
        "again": f"goes on from the last checkpoint: {launch}",
        "never": f"never retried by itself; after correcting the cause: {launch} --retry-failed",
    }[group.policy]


def nodes_of(cases: Sequence[Incident]) -> str:
    """The nodes of some cases with their counts, 'node3 (4), node1 (1)'."""
    names = [case.node for case in cases if case.node]
    counts = sorted({name: names.count(name) for name in names}.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} ({count})" for name, count in counts[:4])


def cases(run: RunFolder, found: Survey) -> list[Incident]:
    """One case a stage that stopped for good, or whose job ended before it did and nobody has taken up since."""
    waiting: dict[str, Counter[str]] = {}
    for cell, state in found.states.items():
        waiting.setdefault(state, Counter())[found.stands_at[cell]] += 1
    lost = waiting.get("failed", Counter()) + waiting.get("blocked", Counter())
    return [*failures(run, found, lost), *ended_jobs(found, waiting.get("open", Counter()))]


def failures(run: RunFolder, found: Survey, cells: Counter[str]) -> Iterator[Incident]:
    """Stages with a failure of their own."""
    for stage, count in cells.items():
        try:
            failure = run.failure(stage)
        except RecordError as error:
            yield Incident(what="torn file", place="", policy="never", stage=stage, cells=count, excerpt=(str(error),))
            continue
        if failure is not None:
            yield incident_of(failure, count)


def ended_jobs(found: Survey, cells: Counter[str]) -> Iterator[Incident]:
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
        yield Incident(what=word, place="", policy=policy, stage=stage, cells=count, excerpt=excerpt, node=job.nodes, log=logs.get(text))


def tail(log: Path) -> str:
    """The end of a log, since its job was started last."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        return re.split(re.escape(NEW_START), file.read().decode(errors="replace"))[-1]
