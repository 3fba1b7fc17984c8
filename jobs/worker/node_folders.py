"""Folders of a node to which libraries write: where the home folder or TMPDIR cannot be written, others take their place.

Triton, torch and numba keep what they compile in the home folder, and compilers work in TMPDIR. On some clusters nodes have no home, or may only read
it; and TMPDIR, which SLURM takes over from the shell that submitted a job, may name a folder that the node does not have.
"""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

# Variables that name a library's folder, with the folder below the home folder that the library takes without them.
OF_LIBRARIES: Final[Mapping[str, str]] = {
    "TRITON_CACHE_DIR": ".triton/cache",
    "TORCH_EXTENSIONS_DIR": ".cache/torch_extensions",
    "TORCH_HOME": ".cache/torch",
    "HF_HOME": ".cache/huggingface",
    "MPLCONFIGDIR": ".config/matplotlib",
}
OF_NUMBA: Final = "NUMBA_CACHE_DIR"  # in the cache of data, unless it is set
TEMPORARY: Final = ("TMPDIR", "TEMP", "TMP")
SMALL_BYTES: Final = 256 << 20  # less than this in a temporary folder is too little for a compiler


def use_writable_folders(cache_path: str) -> list[str]:
    """What was changed in this process's environment, as lines for its log. `cache_path`: the folder of the data files, as a profile names it.

    Variables that name a library's folder stay as they are set. The others are set only where the library's own folder cannot be written.
    """
    cache = of_user(cache_path)
    changes = [*_temporary(cache)]
    base = cache if writable(cache) else Path(tempfile.gettempdir(), "vssm-bench")
    for name, below in OF_LIBRARIES.items():
        own = home() / below
        if name not in os.environ and not writable(own):
            os.environ[name] = str(base / name.lower())
            changes.append(f"{own} cannot be written: {name} is {os.environ[name]}")
    if OF_NUMBA not in os.environ and base is not cache:
        os.environ[OF_NUMBA] = str(base / "numba")
        changes.append(f"{cache} cannot be written: {OF_NUMBA} is {os.environ[OF_NUMBA]}")
    return changes


def _temporary(cache: Path) -> list[str]:
    """Drops variables that name a temporary folder which cannot be written or is nearly full. Where no other is left, there is one in `cache`."""
    changes = []
    for name in TEMPORARY:
        if name in os.environ and not roomy(Path(os.environ[name])):
            changes.append(f"{name} is dropped: {os.environ.pop(name)} cannot be written on this node, or is nearly full")
    tempfile.tempdir = None  # Python looks again
    try:
        enough = roomy(Path(tempfile.gettempdir()))
    except FileNotFoundError:  # there is none at all
        enough = False
    if not enough and writable(cache / "tmp"):
        (cache / "tmp").mkdir(parents=True, exist_ok=True)
        os.environ[TEMPORARY[0]] = tempfile.tempdir = str(cache / "tmp")
        changes.append(f"no temporary folder of this node has room: {TEMPORARY[0]} is {tempfile.tempdir}")
    return changes


def home() -> Path:
    """The home folder; where the system knows none, a folder that cannot be written."""
    return of_user("~")


def of_user(path: str) -> Path:
    """A path that may begin with the home folder; where the system knows none, one that cannot be written."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(os.devnull, path)


def writable(folder: Path) -> bool:
    """True if a file can be written to a folder, or to the nearest one above it that is there. No folder is made."""
    try:
        nearest = next(above for above in (folder, *folder.parents) if above.exists())
        with tempfile.TemporaryFile(dir=nearest):
            return True
    except OSError:
        return False


def roomy(folder: Path) -> bool:
    """True if a folder is there, can be written, and has room for a compiler's files."""
    return folder.is_dir() and writable(folder) and shutil.disk_usage(folder).free >= SMALL_BYTES
