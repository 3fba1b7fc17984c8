"""Who may work on a stage: an advisory lock that the kernel drops when its holder dies, however it dies.

Some network file systems (Lustre with -o localflock, NFS without locks) keep locks within one node. So a holder also writes down its SLURM job, and
while SLURM lists that job on its nodes the claim stands, lock or no lock. Whoever lets go empties the file: what stands there was left by a death.
"""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from io import TextIOWrapper
from pathlib import Path

from jobs.scheduler import available, on_nodes, this_job

ASK_EVERY_S = 5.0


@contextmanager
def claimed(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """True while this process alone holds `path`; False at once when another does and `wait` is False.

    The file stays (removing a locked file would let two holders in) and says who holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        while not _take(file, wait):
            if not wait:
                yield False
                return
            time.sleep(ASK_EVERY_S)
        _write(file, json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "job": this_job()}))
        try:
            yield True
        finally:
            _write(file, "")


def is_claimed(path: Path) -> bool:
    """True when another process holds `path` now."""
    try:
        with _opened(path) as file:
            return not _take(file, wait=False)
    except FileNotFoundError:
        return False


def holder(path: Path) -> str:
    """Who holds `path`, as text: 'process 123 on host', 'SLURM job 17_3 on node2'."""
    try:
        who = json.loads(path.read_text())
        return f"SLURM job {who['job']} on {who['host']}" if who.get("job") else f"process {who['pid']} on {who['host']}"
    except (OSError, ValueError, KeyError):
        return "another process"


def _opened(path: Path) -> TextIOWrapper:
    """The file, for who may write it and for who may only look."""
    try:
        return path.open("r+")
    except FileNotFoundError:
        raise
    except OSError:
        return path.open()


def _take(file: TextIOWrapper, wait: bool) -> bool:
    """True when the lock is ours and no job elsewhere holds the claim without one."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    if job := _left_by(file):
        if _lives(job, int(time.monotonic() / ASK_EVERY_S)):
            fcntl.flock(file, fcntl.LOCK_UN)
            return False
    return True


def _left_by(file: TextIOWrapper) -> str | None:
    """The SLURM job, other than ours, that never let go of the claim."""
    file.seek(0)
    try:
        job = json.loads(file.read() or "{}").get("job")
    except ValueError:
        return None
    return None if job is None or job == this_job() else str(job)


@lru_cache(maxsize=64)
def _lives(job: str, moment: int) -> bool:
    """True when a job may be at work on its nodes; also when SLURM does not say. Asked once in ASK_EVERY_S (`moment` counts them)."""
    return available() and on_nodes(job) is not False


def _write(file: TextIOWrapper, text: str) -> None:
    file.seek(0)
    file.truncate(0)
    file.write(text)
    file.flush()
