"""What to give a stage that ran out of time or memory: a `cluster:` to paste into its entry of the grid.

What its job asked for stands in its script, and what it used in SLURM's accounts, where there are some. A proposal keeps to what partitions allow.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from harness.monitor.incidents import Incident
from harness.monitor.survey import Survey
from jobs.cluster.slurm import SchedulerError, ask
from jobs.cluster.slurm_limits import Partition, configuration, partitions
from jobs.experiment.ids import JobId, StageId
from jobs.experiment.progress import read_progress
from jobs.experiment.submissions import Submission

OUT_OF_TIME: Final = ("TIMEOUT", "DEADLINE", "NoProgress")
OUT_OF_MEMORY: Final = ("OUT_OF_MEMORY", "OutOfMemory")  # of the node, as SLURM counts it; a GPU's has other names
SCRIPT: Final = "submission.sh"
TIMES: Final = 2  # as much as before
SPARE: Final = 1.25  # of what was used
UNITS: Final = {"K": 1 / 2**10, "M": 1.0, "G": 2.0**10, "T": 2.0**20}  # in MB
Known = Mapping[str, Partition]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a job asked for, as its script says."""

    minutes: int | None
    memory_mb: float | None  # of a node
    partitions: tuple[str, ...]
    tasks: int  # of a node
    cpus: int  # of a node


def proposals(surveyed: Survey, incidents: Sequence[Incident]) -> list[str]:
    """A line for each thing that some of the incidents need more of, each once."""
    return list(dict.fromkeys(line for incident in incidents if (line := proposal(surveyed, incident))))


def proposal(surveyed: Survey, incident: Incident) -> str:
    """What an incident's stage needs more of, and the words for the grid; empty for other incidents, and where nothing is known of its job."""
    submission = surveyed.job_of.get(incident.stage)
    if incident.kind not in (*OUT_OF_TIME, *OUT_OF_MEMORY) or submission is None or submission.local:
        return ""
    try:
        asked = asked_in(script_of(submission))
    except OSError:
        return ""
    entry = entry_of(surveyed, incident.stage)
    known = {} if surveyed.silent else partitions_now()
    if incident.kind in OUT_OF_MEMORY:
        return more_memory(asked, used_memory_mb(submission.job) if known else 0.0, known) + entry
    if asked.minutes is None:
        return ""
    return (more_time(asked, known) or checkpoint_advice(asked, seconds_of_a_step(surveyed, incident.stage))) + entry


def script_of(submission: Submission) -> str:
    """The script with which a job was submitted. Raises OSError."""
    return (submission.folder / SCRIPT).read_text(encoding="utf-8", errors="replace")


def asked_in(script: str) -> Asked:
    """What a script for sbatch asks for."""
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)", script, re.MULTILINE))
    tasks, minutes = int(options.get("ntasks-per-node", 1)), options.get("time", "")
    return Asked(
        minutes=int(minutes) if minutes.isdecimal() else None,
        memory_mb=megabytes(options["mem"]) if "mem" in options else None,
        partitions=tuple(filter(None, options.get("partition", "").split(","))),
        tasks=tasks,
        cpus=tasks * int(options.get("cpus-per-task", 1)),
    )


def more_time(asked: Asked, known: Known) -> str:
    """The words for more time; empty if no partition allows more."""
    before, wanted = asked.minutes or 0, TIMES * (asked.minutes or 0)
    own, others = its_partitions(asked, known)
    limits = [math.inf if partition.minutes is None else partition.minutes for partition in own] or [math.inf]
    if max(limits) > before:
        return f"more time: cluster: {{timeout_min: {min(wanted, max(limits)):.0f}}}"
    longer = {partition.name: math.inf if partition.minutes is None else partition.minutes for partition in others if partition.up}
    name = max(longer, key=longer.__getitem__, default="")
    if not name or longer[name] <= before:
        return ""
    return f"more time: cluster: {{timeout_min: {min(wanted, longer[name]):.0f}, partition: {name}}}"


def checkpoint_advice(asked: Asked, step_s: float | None) -> str:
    """The words for checkpoints that fit into the time that there is."""
    limit = f"no partition allows more than {asked.minutes} min"
    steps = f"cluster: {{checkpoint_steps: {max(1, int(60 * (asked.minutes or 1) / 4 / step_s))}}}" if step_s else "checkpoint_steps"
    return f"{limit}, so let a checkpoint fit into it: {steps}"


def more_memory(asked: Asked, used_mb: float, known: Known) -> str:
    """The words for more memory of a node."""
    before = asked.memory_mb or default_memory_mb(asked, bool(known))
    own, others = its_partitions(asked, known)
    most = max((partition.memory_mb for partition in own), default=0) or math.inf
    wanted = max(TIMES * before, SPARE * used_mb * asked.tasks)
    if not wanted:
        return f"more memory: SLURM gave its default; set mem_gb{f' (a node has {most / 1024:.0f} GB)' if most < math.inf else ''}"
    if most > before:
        return f"more memory: cluster: {{mem_gb: {gigabytes(min(wanted, most), up=wanted < most)}}}"
    larger = max((partition for partition in others if partition.up), key=lambda partition: partition.memory_mb, default=None)
    if larger is None or larger.memory_mb <= before:
        return (
            f"no node has more memory than the {before / 1024:.0f} GB that it had: give it fewer ranks a node, or cpus_per_task, which decode images"
        )
    limit = larger.memory_mb
    return f"more memory: cluster: {{mem_gb: {gigabytes(min(wanted, limit), up=wanted < limit)}, partition: {larger.name}}}"


def its_partitions(asked: Asked, known: Known) -> tuple[list[Partition], list[Partition]]:
    """The partitions that a job named, or the default ones; and the others."""
    own = [each for each in known.values() if (each.name in asked.partitions if asked.partitions else each.default)]
    return own, [each for each in known.values() if each not in own]


def gigabytes(memory_mb: float, *, up: bool) -> int:
    """Whole GB, at least 1; rounded down where more would be refused."""
    return max(1, math.ceil(memory_mb / 1024) if up else int(memory_mb / 1024))


def megabytes(text: str) -> float:
    """SLURM's '65536MB', '4G', '1.5Gn', '2048K' as MB; 0 for other text. A number alone is MB in a script."""
    match = re.fullmatch(r"([\d.]+)([KMGT]?)B?[nc]?", text)
    return float(match[1]) * UNITS[match[2] or "M"] if match else 0.0


@cache
def used_memory_mb(job: JobId) -> float:
    """The most memory that a task of an ended job was seen with, asked for once; 0 where SLURM keeps no accounts."""
    try:
        text = ask("sacct", "--noheader", "--parsable2", "--format=MaxRSS", f"--jobs={job}", patience_s=0.0, say=lambda text: None)
    except SchedulerError:
        return 0.0
    return max((megabytes(line.strip()) for line in text.splitlines()), default=0.0)


def default_memory_mb(asked: Asked, answers: bool) -> float:
    """What SLURM gives a job that asks for no memory: a number of a node or of each CPU; 0 where that is not known. `answers`: SLURM does."""
    if not answers:
        return 0.0
    try:
        of_node, of_cpu = configuration("DefMemPerNode") or "", configuration("DefMemPerCPU") or ""
    except SchedulerError:
        return 0.0
    return megabytes(of_node) or asked.cpus * megabytes(of_cpu)


def partitions_now() -> Known:
    """The cluster's partitions; none where SLURM does not answer."""
    try:
        return known_partitions()
    except SchedulerError:
        return {}


@cache
def known_partitions() -> Known:
    """The cluster's partitions, asked for once: a watching status looks every few seconds."""
    return partitions()


def seconds_of_a_step(surveyed: Survey, stage: StageId) -> float | None:
    """Seconds of a step of a stage, by its own progress; None before its first step."""
    progress = read_progress(surveyed.run.stage_dir(stage))
    if progress is None or not progress.eta_s or progress.steps <= progress.step:
        return None
    return progress.eta_s / (progress.steps - progress.step)


def entry_of(surveyed: Survey, stage: StageId) -> str:
    """Where in the grid the words belong: the entry of the model, or of the pruning whose own a stage is."""
    model, _, rest = surveyed.index.stages[stage].kind.partition("  ")
    cells = [entry for entry in surveyed.index.cells.values() if stage in entry.stages]
    names = {entry.title.removeprefix(f"{model}  ").rpartition("  seed ")[0] for entry in cells}
    if rest == "train" or len(names) != 1:
        return f"   (in the entry of {model} under models)"
    return f"   (in the entry of {names.pop()} under pruning, or of {model} under models)"


def given_since(submission: Submission, minutes: int, memory_gb: float | None, kind: str) -> bool:
    """True if a plan already gives a stage more than its last job had of what it ran out of."""
    try:
        asked = asked_in(script_of(submission))
    except OSError:
        return False
    if kind in OUT_OF_TIME:
        return asked.minutes is not None and minutes > asked.minutes
    return memory_gb is not None and 1024 * memory_gb > (asked.memory_mb or 0)
