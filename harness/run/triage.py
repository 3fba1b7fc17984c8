"""Failures by what they have in common, and what is done about each kind.

A failure's signature is its exception and the place in our code that raised it, or SLURM's word for how a job ended. The policies:

    halve       it ran out of memory: half as many images in one forward pass, the global batch kept; the stage goes on by itself
    elsewhere   the node is at fault: the stage goes on by itself, on another one
    again       nobody is at fault (time limit, preemption, scancel, a death without a word): the next launch goes on from the checkpoint
    never       settings or code: nothing is retried until somebody says --retry-failed
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.records import Failure

Policy = Literal["halve", "elsewhere", "again", "never"]
ROOT = Path(__file__).resolve().parents[2]
FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)')
EXCERPT_LINES = 6

# Read from top to bottom, first match wins; the text is that of the exception, its class first.
SIGNS: tuple[tuple[str, Policy], ...] = (
    (r"out of memory|OutOfMemory|^MemoryError|CUBLAS_STATUS_ALLOC_FAILED|DefaultCPUAllocator: (can't allocate|not enough) memory|bad_alloc", "halve"),
    (r"Cannot allocate memory", "halve"),
    (r"uncorrectable ECC|hardware error|GPU is lost|fallen off the bus", "elsewhere"),
    (r"CUDA driver initialization failed|CUDA-capable device\(s\) is/are busy|no CUDA-capable device", "elsewhere"),
    (r"ncclSystemError|NCCL.{0,200}unhandled system error", "elsewhere"),
    (r"Input/output error|Stale file handle|Transport endpoint", "elsewhere"),
)
# What gloo, NCCL and torch's store raise on the ranks that are left when one has died: no error of theirs.
PEER_LOST = re.compile(
    r"connection closed by peer|connection reset by peer|connection was likely closed|broken pipe|socket closed|remote process exited"
    r"|timed out waiting \d+ ?ms for|(read|write|send|recv) error.{0,80}(timed out|no route to host|unreachable)"
    r"|application timeout caused pair closure",
    re.IGNORECASE,
)
# (safetensors and torch give no errno, only the words.)
DISK_FULL = re.compile(r"No space left on device|Disk quota exceeded")
STATES: dict[str, Policy] = {
    "OUT_OF_MEMORY": "halve",
    "NODE_FAIL": "elsewhere",
    "BOOT_FAIL": "elsewhere",
    "TIMEOUT": "again",
    "DEADLINE": "again",
    "PREEMPTED": "again",
    "CANCELLED": "again",
    "REVOKED": "again",
    "FAILED": "again",
    "ENDED": "again",  # SLURM has forgotten how
}
# What slurmstepd writes into a job's log when it ends the job, for clusters that keep no accounts.
LAST_WORDS: tuple[tuple[str, str], ...] = (
    (r"oom[_-]kill|Out Of Memory|[Ee]xceeded (job |step )?memory limit", "OUT_OF_MEMORY"),
    (r"CANCELLED AT \S+ DUE TO TIME LIMIT", "TIMEOUT"),
    (r"CANCELLED AT \S+ DUE TO NODE FAILURE", "NODE_FAIL"),
    (r"CANCELLED AT \S+ DUE TO PREEMPTION", "PREEMPTED"),
    (r"CANCELLED AT", "CANCELLED"),
)


def policy_of(kind: str, message: str) -> Policy:
    """What is done about an exception: its class, and its text."""
    text = f"{kind}: {message}"
    return next((policy for sign, policy in SIGNS if re.search(sign, text, re.DOTALL)), "never")


def last_words(log: str) -> str | None:
    """SLURM's word for how a job ended, read from the end of its log; None where slurmstepd wrote nothing."""
    return next((state for sign, state in LAST_WORDS if re.search(sign, log[-4000:])), None)


def telling(logs: Sequence[str]) -> str:
    """Of the logs of a job's ranks that which says why it ended: where it happened; the others were merely cancelled with it."""
    words = [state for _, state in LAST_WORDS]
    return min(logs, key=lambda log: words.index(state) if (state := last_words(log)) else len(words), default="")


@dataclass(frozen=True, kw_only=True)
class Case:
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
class Group:
    """Cases of one signature."""

    what: str
    place: str
    policy: Policy
    cases: tuple[Case, ...]

    @property
    def cells(self) -> int:
        """How many cells wait for its stages."""
        return sum(case.cells for case in self.cases)


def case_of(failure: Failure, cells: int, log: Path | None = None) -> Case:
    """The case of a stage that failed with an exception of its own."""
    words = failure.traceback.rstrip().splitlines() or failure.message.splitlines()
    return Case(
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


def grouped(cases: Iterable[Case]) -> list[Group]:
    """Cases by signature and policy, the group that most cells wait for first."""
    found: dict[tuple[str, str, Policy], list[Case]] = {}
    for case in cases:
        found.setdefault((case.what, case.place, case.policy), []).append(case)
    groups = [Group(what=what, place=place, policy=policy, cases=tuple(members)) for (what, place, policy), members in found.items()]
    return sorted(groups, key=lambda group: (-group.cells, group.what, group.place))


def remedy(group: Group, launch: str) -> str:
    """What happens to a group's cells, and the command that does it. `launch`: the command that launches their grid."""
    return {
        "halve": f"retried with half the micro-batch, the global batch kept: {launch}",
        "elsewhere": f"retried on other nodes: {launch}",
        "again": f"goes on from the last checkpoint: {launch}",
        "never": f"never retried by itself; after correcting the cause: {launch} --retry-failed",
    }[group.policy]


def nodes_of(cases: Sequence[Case]) -> str:
    """The nodes of some cases with their counts, 'node3 (4), node1 (1)'."""
    names = [case.node for case in cases if case.node]
    counts = sorted({name: names.count(name) for name in names}.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} ({count})" for name, count in counts[:4])
