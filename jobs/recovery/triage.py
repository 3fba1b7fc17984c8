"""Failures by their signs, and the policy for each kind.

A failure's sign is the text of its exception, or SLURM's word for the end of a job. The policies:

    halve       out of memory: the next attempt puts half as many images through one forward pass; the global batch stays
    elsewhere   the node is at fault: the stage runs again on another node
    again       time limit, preemption, scancel, an unexplained death: the next launch continues from the checkpoint
    never       a mistake in settings or code: the stage runs again only after a launch with --retry-failed

This module only classifies. The policy is applied in three places, one for each way in which a failure is noticed:

    an exception in a job              jobs/worker/failures.py: at once, on the node
    a local process that died          harness/submit/local.py: by the launch that watches it
    a SLURM job that ended             harness/monitor/incidents.py, harness/submit/previous.py: by the next launch
"""

import re
from collections.abc import Sequence
from typing import Literal

Policy = Literal["halve", "elsewhere", "again", "never"]

# Patterns over "<exception class>: <message>". The first match wins.
SIGNS: tuple[tuple[str, Policy], ...] = (
    (r"out of memory|OutOfMemory|^MemoryError|DefaultCPUAllocator: (can't allocate|not enough) memory|bad_alloc|Cannot allocate memory", "halve"),
    (r"(CUBLAS_STATUS|CUDNN_STATUS|CUFFT)_ALLOC_FAILED|unable to find an engine to execute", "halve"),  # cuDNN finds no engine for want of memory
    (r"driver on your system is too old", "never"),  # all nodes of a cluster have the same
    (r"sees no GPU on|local rank \d+ has no GPU|No CUDA GPUs are available|system not yet initialized", "elsewhere"),
    (r"uncorrectable ECC|hardware error|GPU is lost|fallen off the bus", "elsewhere"),
    (r"CUDA driver initialization failed|CUDA-capable device\(s\) is/are busy|no CUDA-capable device", "elsewhere"),
    (r"ncclSystemError|NCCL.{0,200}unhandled system error", "elsewhere"),
    (r"Input/output error|Stale file handle|Transport endpoint", "elsewhere"),
)
# Messages of gloo, NCCL and torch's store on the ranks that remain when another rank has died. They come before the signs: NCCL calls the loss of a
# peer a system error, and the node that tells of it is the healthy one.
PEER_LOST = re.compile(
    r"connection closed by (remote )?peer|connection reset by peer|connection was likely closed|broken pipe|socket closed|remote process exited"
    r"|timed out waiting \d+ ?ms for|(read|write|send|recv) error.{0,80}(timed out|no route to host|unreachable)"
    r"|application timeout caused pair closure|collective operation timeout|communicator was aborted|wait timeout|ncclRemoteError"
    r"|unexpected exit of a remote peer|connect to \S+ (failed ?:|returned)",
    re.IGNORECASE,
)
# safetensors and torch raise errors without an errno.
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
    "ENDED": "again",  # SLURM no longer knows how
}
# Messages of slurmstepd in a job's log when it ends the job, for clusters without accounting. The first match is the cause of the others.
LAST_WORDS: tuple[tuple[str, str], ...] = (
    (r"oom[_-]kill|Out Of Memory|[Ee]xceeded (job |step )?memory limit", "OUT_OF_MEMORY"),
    (r"CANCELLED AT \S+ DUE TO TIME LIMIT", "TIMEOUT"),
    (r"CANCELLED AT \S+ DUE TO NODE FAILURE", "NODE_FAIL"),
    (r"CANCELLED AT \S+ DUE TO PREEMPTION", "PREEMPTED"),
    (r"CANCELLED AT", "CANCELLED"),
)


def policy_of(kind: str, message: str) -> Policy:
    """The policy for an exception. `kind`: its class."""
    text = f"{kind}: {message}"
    return next((policy for sign, policy in SIGNS if re.search(sign, text, re.DOTALL)), "never")


def last_words(log: str) -> str | None:
    """SLURM's state of an ended job, read from the end of its log; None where slurmstepd wrote nothing."""
    return next((state for sign, state in LAST_WORDS if re.search(sign, log[-4000:])), None)


def decisive_log(logs: Sequence[str]) -> str:
    """The log that explains why a job ended, out of those of its ranks: that of the rank that failed, not of ranks that were cancelled with it."""
    words = [state for _, state in LAST_WORDS]
    return min(logs, key=lambda log: words.index(state) if (state := last_words(log)) else len(words), default="")
