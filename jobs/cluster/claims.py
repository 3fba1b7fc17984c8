"""Claims: which process may work on a stage.

A claim is a file lock, which the kernel drops when its holder dies, and a sign of life every few seconds. The lock alone is not enough.
Some network file systems (Lustre with -o localflock, NFS without locks) keep locks within one node. A node that is cut off the network may lose its
locks and still run its processes. So a holder also writes into the file who it is, and checks that the claim is still its own:

- A claim stands while SLURM lists the holder's job on its nodes, with or without the lock.
- It also stands until a holder on another machine has given no sign of life for LEASE_S, whatever SLURM says: SLURM may give up a node that is alive.
- A job that SLURM has started again asks the previous attempt to exit. That attempt sees the request within BEAT_S and ends its process.

A holder that lets go empties the file. Whatever a file still contains was left by a process that died.
"""

import fcntl
import json
import os
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from io import TextIOWrapper
from pathlib import Path
from typing import NoReturn

from jobs.cluster.slurm import available, on_nodes, restarts, this_job
from jobs.experiment.files import this_host

ASK_EVERY_S = 5.0  # between two questions to SLURM about one job
POLL_S = 0.5  # between two attempts to take a claim
BEAT_S = 4.0  # between two signs of life
LEASE_S = 15.0  # after its last sign of life, a holder that cannot be seen from here counts as dead
SUPERSEDED = 75  # exit code of a process whose claim belongs to another process now


@dataclass(frozen=True, kw_only=True)
class Holder:
    """A process that holds a claim, or asks for it, as one line of the claim's file."""

    host: str = ""
    pid: int = 0
    job: str | None = None  # SLURM's
    attempt: int = 0  # how often SLURM had restarted the job
    key: str = ""  # differs in every process

    def __str__(self) -> str:
        if not self.host:
            return "another process"
        return f"SLURM job {self.job} on {self.host}" if self.job else f"process {self.pid} on {self.host}"

    def supersedes(self, other: "Holder") -> bool:
        """True for a later attempt at the same SLURM job."""
        return self.job is not None and self.job == other.job and self.attempt > other.attempt

    def to_json(self) -> str:
        """The line of this process."""
        return json.dumps(asdict(self)) + "\n"


@contextmanager
def claimed(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """True while this process alone holds `path`. If another process holds it and `wait` is False, False at once.

    The file stays, since removing a locked file would let two holders in, and says who holds it. A holder whose claim is taken all the same, because
    SLURM has started its job again elsewhere, ends its process: it must not write any more.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    me = Holder(host=this_host(), pid=os.getpid(), job=this_job(), attempt=restarts(), key=secrets.token_hex(8))
    with path.open("a+", encoding="utf-8") as file:
        while not _take(file, path):
            _ask_to_exit(file, path, me)
            if not wait:
                yield False
                return
            time.sleep(POLL_S)
        _write(file, me.to_json())
        over = threading.Event()
        beats = threading.Thread(target=_beat, args=(path, me, over), daemon=True)
        beats.start()
        try:
            yield True
        finally:
            over.set()
            beats.join()
            with suppress(FileNotFoundError):  # the folder was removed meanwhile
                if _read(path)[:1] == [me]:
                    _write(file, "")


def is_claimed(path: Path) -> bool:
    """True if another process holds `path` now."""
    try:
        with _opened(path) as file:
            return not _take(file, path)
    except FileNotFoundError:
        return False


def holder(path: Path) -> Holder:
    """The holder of `path`; an empty one where it cannot be read. As text: 'process 123 on host', 'SLURM job 17_3 on node2', 'another process'."""
    try:
        return next(iter(_read(path)), Holder())
    except OSError:
        return Holder()


def _opened(path: Path) -> TextIOWrapper:
    """The open file; for reading alone where this user may not write it."""
    try:
        return path.open("r+", encoding="utf-8")
    except FileNotFoundError:
        raise
    except OSError:
        return path.open(encoding="utf-8")


def _take(file: TextIOWrapper, path: Path) -> bool:
    """True if this process has got the lock, and the process that the file still names, if any, is dead."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    if any(_may_be_alive(left, file, path) for left in _read(path)[:1]):
        fcntl.flock(file, fcntl.LOCK_UN)
        return False
    return True


def _may_be_alive(left: Holder, file: TextIOWrapper, path: Path) -> bool:
    """True if a holder that never let go may be alive, although this process has got its lock."""
    if left.job is not None and left.job != this_job() and _on_nodes(str(left.job), int(time.monotonic() / ASK_EVERY_S)):
        return True
    return left.host != this_host() and _silent_s(file, path) < LEASE_S


def _silent_s(file: TextIOWrapper, path: Path) -> float:
    """Seconds since the holder's last sign of life, by the clock of the file system, or by ours where this user may not write."""
    try:
        with tempfile.TemporaryFile(dir=path.parent) as new:
            now = os.fstat(new.fileno()).st_mtime
    except OSError:
        now = time.time()
    return now - os.fstat(file.fileno()).st_mtime


@lru_cache(maxsize=64)
def _on_nodes(job: str, moment: int) -> bool:
    """True if a job may be at work on its nodes, or if SLURM does not say. SLURM is asked once in ASK_EVERY_S; `moment` counts those periods."""
    return available() and on_nodes(job) is not False


def _ask_to_exit(file: TextIOWrapper, path: Path, me: Holder) -> None:
    """Adds this process to the file if the holder is a previous attempt at this process's own job. That counts as no sign of life of the holder."""
    holders = _read(path)
    if not holders or not me.supersedes(holders[0]) or any(other.supersedes(holders[0]) for other in holders[1:]):
        return
    last_sign = os.fstat(file.fileno())
    print(f"{path.name} is held by a previous attempt at this job, {holders[0]}: that attempt is asked to exit", flush=True)
    file.write(me.to_json())  # the file is open for appending
    file.flush()
    with suppress(PermissionError):  # another user's file
        os.utime(file.fileno(), ns=(last_sign.st_atime_ns, last_sign.st_mtime_ns))


def _beat(path: Path, me: Holder, over: threading.Event) -> None:
    """Gives signs of life until `over` is set. Ends the process if the claim is no longer its own."""
    while not over.wait(BEAT_S):
        try:
            first, *others = _read(path) or [Holder()]
            if first.key != me.key or any(other.supersedes(me) for other in others):
                _exit(path, others[0] if others else first)
            os.utime(path)
        except OSError:  # the file system is out of reach, or the folder was removed
            continue


def _exit(path: Path, new: Holder) -> NoReturn:
    """Ends the process at once, whatever it is doing."""
    print(f"{path.name} now belongs to {new}: SLURM has given up this attempt, and this process exits", file=sys.stderr, flush=True)
    os._exit(SUPERSEDED)


def _read(path: Path) -> list[Holder]:
    """The holder that has not let go, then those that ask it to exit. Opened anew, so that network file systems show the latest content."""
    holders = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(ValueError):
            content = json.loads(line)
            if isinstance(content, dict):
                holders.append(Holder(**{name: content[name] for name in Holder.__dataclass_fields__ if name in content}))
    return holders


def _write(file: TextIOWrapper, text: str) -> None:
    """Replaces the content of the file."""
    file.seek(0)
    file.truncate(0)
    file.write(text)
    file.flush()
