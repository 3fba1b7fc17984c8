"""Who may work on a stage: an advisory lock that the kernel drops when its holder dies, however it dies, and a sign of life every few seconds.

The lock alone is not enough: some network file systems (Lustre with -o localflock, NFS without locks) keep locks within one node, and a node that is
cut off the network may lose them while its processes run on. So a holder also writes down who it is, and looks whether the claim is still its own:

- while SLURM lists the holder's job on its nodes the claim stands, lock or no lock;
- so it does until nothing was heard of a holder on another machine for LEASE_S, whatever SLURM says: a node that SLURM has given up may be alive;
- a job that SLURM has started again asks what is left of its earlier attempt to go. That sees it within BEAT_S and ends its process.

Whoever lets go empties the file: what stands there was left by a death.
"""

import fcntl
import json
import os
import secrets
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

from jobs.cluster.slurm import available, on_nodes, restarts, this_job

ASK_EVERY_S = 5.0
POLL_S = 0.5
BEAT_S = 4.0  # between two signs of life
LEASE_S = 15.0  # after the last one, who may be alive where nobody can see it counts as dead
LEFT_BEHIND = 75  # exit code of a process whose claim another one has


@contextmanager
def claimed(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """True while this process alone holds `path`; False at once when another does and `wait` is False.

    The file stays (removing a locked file would let two holders in) and says who holds it. A holder that is replaced all the same, because SLURM has
    started its job again elsewhere, ends its process: it must not write any more.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    me = {"host": socket.gethostname(), "pid": os.getpid(), "job": this_job(), "attempt": restarts(), "key": secrets.token_hex(8)}
    with path.open("a+") as file:
        while not _take(file, path):
            _ask_to_go(file, path, me)
            if not wait:
                yield False
                return
            time.sleep(POLL_S)
        _write(file, json.dumps(me) + "\n")
        over = threading.Event()
        beats = threading.Thread(target=_beat, args=(path, me, over), daemon=True)
        beats.start()
        try:
            yield True
        finally:
            over.set()
            beats.join()
            with suppress(FileNotFoundError):  # the folder was removed meanwhile
                if _names(path)[:1] == [me]:
                    _write(file, "")


def is_claimed(path: Path) -> bool:
    """True when another process holds `path` now."""
    try:
        with _opened(path) as file:
            return not _take(file, path)
    except FileNotFoundError:
        return False


def holder(path: Path) -> str:
    """Who holds `path`, as text: 'process 123 on host', 'SLURM job 17_3 on node2'."""
    try:
        return _called(_names(path)[0])
    except (OSError, IndexError, KeyError):
        return "another process"


def _called(who: Mapping[str, Any]) -> str:
    return f"SLURM job {who['job']} on {who['host']}" if who.get("job") else f"process {who['pid']} on {who['host']}"


def _opened(path: Path) -> TextIOWrapper:
    """The file, for who may write it and for who may only look."""
    try:
        return path.open("r+")
    except FileNotFoundError:
        raise
    except OSError:
        return path.open()


def _take(file: TextIOWrapper, path: Path) -> bool:
    """True when the lock is ours and whoever left the claim behind is dead."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    if any(_stands(who, file, path) for who in _names(path)[:1]):
        fcntl.flock(file, fcntl.LOCK_UN)
        return False
    return True


def _stands(who: Mapping[str, Any], file: TextIOWrapper, path: Path) -> bool:
    """True when the holder of a claim that was never let go may be alive, although we have its lock."""
    job = who.get("job")
    if job is not None and job != this_job() and _lives(str(job), int(time.monotonic() / ASK_EVERY_S)):
        return True
    return who.get("host") != socket.gethostname() and _heard_s(file, path) < LEASE_S


def _heard_s(file: TextIOWrapper, path: Path) -> float:
    """Seconds since the holder's last sign of life, by the clock of the file system where we may write there."""
    try:
        with tempfile.TemporaryFile(dir=path.parent) as new:
            now = os.fstat(new.fileno()).st_mtime
    except OSError:
        now = time.time()
    return now - os.fstat(file.fileno()).st_mtime


@lru_cache(maxsize=64)
def _lives(job: str, moment: int) -> bool:
    """True when a job may be at work on its nodes; also when SLURM does not say. Asked once in ASK_EVERY_S (`moment` counts them)."""
    return available() and on_nodes(job) is not False


def _ask_to_go(file: TextIOWrapper, path: Path, me: Mapping[str, Any]) -> None:
    """Signs below the holder where that is an earlier attempt at our own job; not a sign of life of the holder's."""
    names = _names(path)
    if not names or not _is_later(me, names[0]) or any(_is_later(one, names[0]) for one in names[1:]):
        return
    heard = os.fstat(file.fileno())
    print(f"{path.name} is held by what is left of {_called(names[0])}, an earlier attempt at this job: it is asked to go", flush=True)
    file.write(json.dumps(me) + "\n")  # opened to append
    file.flush()
    with suppress(PermissionError):  # another user's file
        os.utime(file.fileno(), ns=(heard.st_atime_ns, heard.st_mtime_ns))


def _beat(path: Path, me: Mapping[str, Any], over: threading.Event) -> None:
    """Gives signs of life until it is over; ends the process when the claim is no longer its own."""
    while not over.wait(BEAT_S):
        try:
            first, *others = _names(path) or [{}]
            if first.get("key") != me["key"] or any(_is_later(one, me) for one in others):
                _go(path, others[0] if others else first)
            os.utime(path)
        except OSError:  # the file system is out of reach, or the folder was removed
            continue


def _is_later(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """True for a later attempt at the same job of SLURM's."""
    return one.get("job") is not None and one.get("job") == other.get("job") and one.get("attempt", 0) > other.get("attempt", 0)


def _go(path: Path, other: Mapping[str, Any]) -> NoReturn:
    """Ends the process, whatever it is at."""
    who = _called(other) if other else "somebody else"
    what = "this process was left behind by an attempt that SLURM has given up, and ends"
    print(f"{path.name} now belongs to {who}: {what}", file=sys.stderr, flush=True)
    os._exit(LEFT_BEHIND)


def _names(path: Path) -> list[dict[str, Any]]:
    """The holder that never let go, then who has asked it to go. Opened anew, as network file systems show what others wrote."""
    found = []
    for line in path.read_text().splitlines():
        with suppress(ValueError):
            found.append(json.loads(line))
    return [one for one in found if isinstance(one, dict)]


def _write(file: TextIOWrapper, text: str) -> None:
    file.seek(0)
    file.truncate(0)
    file.write(text)
    file.flush()
