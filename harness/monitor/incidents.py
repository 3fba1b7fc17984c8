"""Failures for people: what stages wrote down themselves, and SLURM's word for jobs that ended before their stage did.

The policy of `jobs.recovery.triage` is applied in three folders: `jobs/worker/failures.py` applies it on the node, to an exception;
`harness/submit/local.py` retries a local process that died; `harness/submit/previous.py` acts on the incidents of SLURM jobs at the next launch. Here
it is only shown.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.monitor.survey import Survey, failed_on
from jobs.experiment.ids import StageId
from jobs.experiment.records import Failure, RecordError, unreadable_failure
from jobs.experiment.run_folder import RunFolder
from jobs.recovery.triage import STATES, Policy, decisive_log, last_words

ROOT = Path(__file__).resolve().parents[2]
FLOORS = ("harness", "jobs", "analysis", "models")
FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)')
PLUGIN = re.compile(r"/plugins/[0-9a-f]{12}/(.+)$")  # a file of a plug-in in a run folder
EXCERPT_LINES = 6
TAIL_BYTES = 20_000
VAGUE = ("FAILED", "CANCELLED", "ENDED")  # SLURM's word even for some jobs that ran out of memory or time: their log says more
NEW_START = "Starting with "  # submitit's first line; a job that was queued again goes on in the same log


@dataclass(frozen=True, kw_only=True)
class Incident:
    """One stage that stopped: how, where, and how many cells wait for it."""

    kind: str  # exception class, "diverged", "killed", or SLURM's state
    location: str  # in our code, 'jobs/data/prepare.py:120 in prepare'; empty where SLURM ended the job
    policy: Policy
    stage: StageId
    cells: int
    excerpt: tuple[str, ...] = ()
    node: str = ""
    log: Path | None = None


@dataclass(frozen=True, kw_only=True)
class IncidentGroup:
    """Incidents of one kind, location and policy."""

    kind: str
    location: str
    policy: Policy
    incidents: tuple[Incident, ...]

    @property
    def cells(self) -> int:
        """How many cells wait for its stages."""
        return sum(incident.cells for incident in self.incidents)


def incidents(run: RunFolder, surveyed: Survey) -> list[Incident]:
    """One incident for each torn record, and for each stage that stopped for good, or whose job ended before it did and that no job has taken up."""
    waiting: dict[str, Counter[StageId]] = {}
    for cell, state in surveyed.states.items():
        waiting.setdefault(state, Counter()).update(surveyed.fronts(cell) if state == "open" else [surveyed.stands_at[cell]])
    lost = waiting.get("failed", Counter()) + waiting.get("blocked", Counter())
    return [*failures(run, lost), *failed_records(run, surveyed), *ended_jobs(surveyed, waiting.get("open", Counter()))]


def failures(run: RunFolder, cells: Mapping[StageId, int]) -> Iterator[Incident]:
    """The incidents of stages that wrote a failure. `cells`: how many wait for each."""
    for stage, count in cells.items():
        failure = run.failure(stage)
        if failure is not None:
            yield incident_of(failure, count)


def failed_records(run: RunFolder, surveyed: Survey) -> Iterator[Incident]:
    """The incidents of cells whose stages are all well and whose record is torn, or tells of a failure."""
    for cell, state in surveyed.states.items():
        stages = surveyed.index.cells[cell].required
        if state != "failed" or failed_on(stages, surveyed.files) is not None:
            continue
        try:
            record = run.record(cell)
            failure = record.failure if record else None
        except RecordError as error:
            failure = unreadable_failure(stages[-1], error)
        except OSError as error:
            failure = Failure(kind="unreadable record", message=f"{run.record_path(cell)}: {error.strerror}", stage=stages[-1])
        if failure is not None:
            yield incident_of(failure, 1)


def incident_of(failure: Failure, cells: int) -> Incident:
    """The incident of a stage that failed with an exception of its own."""
    lines = failure.traceback.rstrip().splitlines() or failure.message.splitlines()
    return Incident(
        kind=failure.kind,
        location=location_of(failure.traceback),
        policy="never",  # a stage with another policy was retried before it wrote a failure
        stage=StageId(failure.stage),
        cells=cells,
        excerpt=tuple(lines[-EXCERPT_LINES:]),
        node=failure.host,
    )


def location_of(traceback: str) -> str:
    """The last frame of a traceback in our own code, or the last frame where none is ours; empty without frames."""
    frames = [(Path(frame["file"]), f":{frame['line']} in {frame['function']}") for frame in FRAME.finditer(traceback)]
    if not frames:
        return ""
    ours = [f"{path}{position}" for file, position in frames if (path := path_in_project(file))]
    file, position = frames[-1]
    return ours[-1] if ours else f"{Path(*file.parts[-2:])}{position}"


def path_in_project(file: Path) -> Path | None:
    """The path of one of our files from the root of the project, also where it ran in another checkout, or of a plug-in's file; None for others."""
    if copied := PLUGIN.search(str(file)):
        return Path(copied[1])
    if "site-packages" in file.parts:
        return None
    if file.is_relative_to(ROOT):
        return file.relative_to(ROOT)
    start = max((index for index, part in enumerate(file.parts) if part in FLOORS), default=None)
    return None if start is None else Path(*file.parts[start:])


def ended_jobs(surveyed: Survey, cells: Mapping[StageId, int]) -> Iterator[Incident]:
    """The incidents of stages whose SLURM job ended without weights and without a failure. `cells`: how many wait for each."""
    for stage, count in cells.items():
        submission = surveyed.job_of.get(stage)
        if submission is None or submission.local or submission.job not in surveyed.jobs or surveyed.under_way(submission) != stage:
            continue
        job, logs = surveyed.jobs[submission.job], {tail(log): log for log in submission.logs()}
        text = decisive_log(list(logs))
        word = job.state if job.state not in VAGUE else last_words(text) or job.state
        excerpt = tuple(line for line in text.splitlines() if line.strip())[-EXCERPT_LINES:]
        policy = STATES.get(word, "again")
        yield Incident(kind=word, location="", policy=policy, stage=stage, cells=count, excerpt=excerpt, node=job.nodes, log=logs.get(text))


def tail(log: Path) -> str:
    """The end of a log, since the latest start of its job."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        return file.read().decode(errors="replace").rpartition(NEW_START)[2]


def grouped(incidents: Iterable[Incident]) -> list[IncidentGroup]:
    """Incidents by kind, location and policy; the group that most cells wait for comes first."""
    members: dict[tuple[str, str, Policy], list[Incident]] = {}
    for incident in incidents:
        members.setdefault((incident.kind, incident.location, incident.policy), []).append(incident)
    groups = [
        IncidentGroup(kind=kind, location=location, policy=policy, incidents=tuple(group)) for (kind, location, policy), group in members.items()
    ]
    return sorted(groups, key=lambda group: (-group.cells, group.kind, group.location))


def remedy(group: IncidentGroup, launch: str) -> str:
    """How a group's cells go on, and the command for it. `launch`: the command that launches their grid."""
    return {
        "halve": f"will be retried with half the micro-batch and the same global batch: {launch}",
        "elsewhere": f"will be retried on other nodes: {launch}",
        "again": f"will resume from the last checkpoint: {launch}",
        "never": f"not retried automatically; fix the cause, then: {launch} --retry-failed",
    }[group.policy]


def nodes_of(incidents: Sequence[Incident]) -> str:
    """The nodes of some incidents with their counts, 'node3 (4), node1 (1)'; at most four."""
    counts = Counter(incident.node for incident in incidents if incident.node)
    shown = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} ({count})" for name, count in shown[:4])
