"""The difference between the running code and its commit, as `git apply` reads it: changed files, and files that git does not track.

A new file is code too: a pruning method of one's own is such a file. Large files, folders that are repositories of their own, and more text than
LIMIT_BYTES are named at the beginning of the difference instead of being in it.
"""

import os
import shutil
import tempfile
from pathlib import Path

from jobs.experiment.run_folder import CODE_DIFF
from jobs.worker import environment
from jobs.worker.environment import git_bytes

FILE_BYTES = 1 << 20  # a larger file that git does not track is named alone
LIMIT_BYTES = 16 << 20
MAX_FILES = 2000  # that git does not track
PLAIN = ("--binary", "--no-ext-diff", "--no-textconv", "--no-color", "--src-prefix=a/", "--dst-prefix=b/")  # whatever the user's configuration says


def code_diff() -> bytes:
    """The difference, empty if there is none, or outside a repository. It starts with a line for each file that is left out."""
    if (environment.ROOT / environment.COPY_VERSION).exists():  # a copy in a run folder, which has that of the launch
        launched = environment.ROOT / CODE_DIFF
        return launched.read_bytes() if launched.exists() else b""
    names = [name for name in (git_bytes("ls-files", "--others", "--exclude-standard", "-z") or b"").split(b"\0") if name]
    small = [name for name in names if is_small(name)][:MAX_FILES]
    diff = with_new_files(small)
    if diff is None or len(diff) > LIMIT_BYTES:
        small, diff = [], git_bytes("diff", *PLAIN, "HEAD")
    if diff is None or len(diff) > LIMIT_BYTES:
        diff = b"# the changes of tracked files are too large to be kept\n"
    kept = set(small)
    notes = [b"# not tracked, and not in this difference: " + name.replace(b"\n", b"\\n") + b"\n" for name in names if name not in kept]
    return b"".join(notes) + diff


def is_small(name: bytes) -> bool:
    """True for a file or link, by its path in the project, that is small enough to be kept."""
    path = os.path.join(os.fsencode(environment.ROOT), name)
    try:
        return (os.path.islink(path) or os.path.isfile(path)) and os.lstat(path).st_size <= FILE_BYTES
    except OSError:
        return False


def with_new_files(names: list[bytes]) -> bytes | None:
    """The difference of tracked files and of these. They are added to a copy of git's index, and the repository stays as it is. None if git fails."""
    index = git_bytes("rev-parse", "--git-path", "index")
    if index is None:
        return None
    try:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "index"
            shutil.copyfile(environment.ROOT / os.fsdecode(index.rstrip(b"\n")), copy)
            arguments = ("--literal-pathspecs", "add", "--intent-to-add", "--pathspec-from-file=-", "--pathspec-file-nul")
            if names and git_bytes(*arguments, index=copy, given=b"\0".join(names)) is None:
                return None
            return git_bytes("diff", *PLAIN, "HEAD", index=copy)
    except OSError:
        return None
