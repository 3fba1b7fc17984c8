"""File systems: whether they do what a run needs of them, and how fast."""

import fcntl
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from harness.health.finding import Finding, error, ok, warning
from jobs.data.space import free_bytes, shown
from jobs.worker.node_folders import home as node_home
from jobs.worker.node_folders import writable

SKEW_S = 2.0  # by which a file server's clock may differ
LITTLE = 10 << 30  # bytes
FILES, LARGE = 100, 32 << 20  # what is written to learn a speed
SLOW_FILES, SLOW_MB = 20.0, 20.0  # a second
TRY_LOCK = "import fcntl, sys; fcntl.flock(open(sys.argv[1], 'a'), fcntl.LOCK_EX | fcntl.LOCK_NB)"


def disk(topic: str, folder: Path, *, shared: bool) -> Iterator[Finding]:
    """A folder: writable, with room, renames and locks that hold, a clock that agrees, and a speed. shared: nodes are to see it too."""
    kind = file_system(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".doctor-") as aside:
            yield from tried(topic, folder, Path(aside), kind)
    except OSError as failed:
        yield error(topic, f"{folder} ({kind}) cannot be written: {failed.strerror}", "name a folder that can be: cluster.cache, --runs, or HOME")
        return
    if shared and kind in ("tmpfs", "overlay", "ramfs"):
        yield warning(topic, f"{folder} is on {kind}, which other nodes do not see", "put it on a file system that the nodes share")


def tried(topic: str, folder: Path, aside: Path, kind: str) -> Iterator[Finding]:
    """What was seen when files were written to `aside`, a folder within `folder`."""
    faults = [fault for fault in (renames(aside), locks(aside)) if fault]
    for text in faults:
        yield error(topic, f"{folder} ({kind}): {text}", "mount it with POSIX semantics (Lustre: -o flock), or use another file system")
    if abs(skew := clock_skew_s(aside)) > SKEW_S:
        remedy = "start chrony or ntpd on both: files of another machine look older or newer than they are"
        yield warning(topic, f"{folder} ({kind}): its clock differs from this machine's by {skew:.0f} s", remedy)
    files, megabytes = speed(aside)
    text = f"{folder} ({kind}): {shown(free_bytes(folder))} free, {files:.0f} files/s, {megabytes:.0f} MB/s to the disk"
    if free_bytes(folder) < LITTLE:
        yield warning(topic, text, f"free space, or name another folder; a run with ImageNet needs more than {shown(LITTLE)}")
    elif files < SLOW_FILES or megabytes < SLOW_MB:
        yield warning(topic, text, "checkpoints will be slow here; another file system of the cluster may be faster")
    elif not faults:
        yield ok(topic, text)


def renames(folder: Path) -> str:
    """What is wrong with a rename over an existing file; empty if it holds."""
    target, aside = folder / "target", folder / "aside"
    target.write_bytes(b"before")
    aside.write_bytes(b"after")
    with target.open("rb") as reader:
        aside.replace(target)
        if reader.read() != b"before" or target.read_bytes() != b"after":
            return "a rename over a file does not take its place at once"
    return ""


def locks(folder: Path) -> str:
    """What is wrong with locks between two processes; empty if they hold."""
    path = folder / "lock"
    with path.open("ab") as mine:
        try:
            fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as failed:
            return f"it knows no locks ({failed.strerror})"
        taken = subprocess.run([sys.executable, "-c", TRY_LOCK, str(path)], capture_output=True, check=False).returncode == 0
    return "two processes can lock one file" if taken else ""


def clock_skew_s(folder: Path) -> float:
    """Seconds by which the file system's clock is ahead of this machine's."""
    before = time.time()
    path = folder / "now"
    path.write_bytes(b"")
    stamped, after = path.stat().st_mtime, time.time()
    return stamped - min(max(stamped, before - 0.1), after + 0.1)  # clocks of files tick coarsely


def speed(folder: Path) -> tuple[float, float]:
    """(files written and synced, MB written and synced) a second."""
    started = time.perf_counter()
    for number in range(FILES):
        synced(folder / str(number), b"x" * 512)
        if time.perf_counter() - started > 2:
            break
    files = (number + 1) / (time.perf_counter() - started)
    content, started = secrets.token_bytes(1 << 20) * (LARGE >> 20), time.perf_counter()
    synced(folder / "large", content)
    return files, LARGE / 1e6 / (time.perf_counter() - started)


def synced(path: Path, content: bytes) -> None:
    """Writes a file to the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def file_system(folder: Path) -> str:
    """The kind of file system that holds a folder, as the kernel names it."""
    path = os.path.realpath(folder)
    mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()]
    holding = [(mount, kind) for mount, kind in mounts if path == mount or path.startswith(mount.rstrip("/") + "/")]
    return max(holding, key=lambda pair: len(pair[0]), default=("", "unknown"))[1]


@contextmanager
def marked(folder: Path, mark: str) -> Iterator[bool]:
    """A file of this name meanwhile, in a folder or the nearest one above it that is there: a node sees by it whether its folder is the same one.

    False where it cannot be written, so that nodes have nothing to look for; the look at the cache says why.
    """
    nearest = next(above for above in (folder, *folder.parents) if above.exists())
    try:
        (nearest / mark).touch()
        written = True
    except OSError:
        written = False
    try:
        yield written
    finally:
        with suppress(OSError):
            (nearest / mark).unlink(missing_ok=True)


def same_folder(folder: Path, mark: str) -> Iterator[Finding]:
    """Whether a node sees the cache that the login node marked. Home folders, where it is by default, are not shared on every cluster."""
    if any((above / mark).exists() for above in (folder, *folder.parents)):
        yield ok("cache", f"{folder} is the folder that the login node sees")
    else:
        text = f"{folder} here is not the folder of that path where you are, so jobs would find no data"
        yield error("cache", text, "set cluster.cache to a folder on a file system that all nodes share; home folders may not be")


def home(cache: Path) -> Iterator[Finding]:
    """The home folder, in which libraries keep what they compile. cache: where jobs let them keep it if they cannot."""
    folder = node_home()
    if writable(folder):
        yield ok("home", f"{folder} ({file_system(folder)}) can be written")
    else:
        why = f"{folder} cannot be written here; what Triton and torch compile goes to {cache if writable(cache) else 'the temporary folder'}"
        yield warning("home", why, "nothing to do; TRITON_CACHE_DIR in the profile's environment names another folder")


def scratch(names: tuple[str, ...] = ("SLURM_TMPDIR", "TMPDIR", "LOCAL_SCRATCH")) -> Iterator[Finding]:
    """A node's own disk, where a variable names one."""
    name = next((name for name in names if os.environ.get(name)), None)
    folder = Path(os.environ[name]) if name else Path(tempfile.gettempdir())
    called = f"${name}" if name else "no variable names a scratch folder; temporary files go to"
    if not os.access(folder, os.W_OK):
        yield error("node's disk", f"{called} {folder} cannot be written", "unset the variable, or create the folder in the profile's setup")
        return
    text = f"{called} {folder} ({file_system(folder)}): {shown(free_bytes(folder))} free"
    if free_bytes(folder) < 1 << 30:
        yield warning("node's disk", text, "free space there; numba and torch keep files in it")
    else:
        yield ok("node's disk", text)
