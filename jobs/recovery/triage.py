"""Failures by what they have in common, and what is done about each kind.

A failure's signature is its exception and the place in our code that raised it, or SLURM's word for how a job ended. The policies:

    halve       it ran out of memory: half as many images in one forward pass, the global batch kept; the stage goes on by itself
    elsewhere   the node is at fault: the stage goes on by itself, on another one
    again       nobody is at fault (time limit, preemption, scancel, a death without a word): the next launch goes on from the checkpoint
    never       settings or code: nothing is retried until somebody says --retry-failed
"""

import re
from collections.abc import Sequence
from typing import Literal

Policy = Literal["halve", "elsewhere", "again", "never"]

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
