"""The code of a launch, kept in its run folder. Jobs run from there: an edit or a `git pull` while they wait changes nothing of what was launched.

<run>/code/<id>/    harness/ jobs/ models/ analysis/ as they were, with what was built; version.json: commit, and whether files differ from it;
                    code.diff: how. <id> is the beginning of the SHA-256 of names and contents, so equal code is kept once.
"""

import hashlib
import json
import os
import shutil
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from jobs.experiment.files import write_json
from jobs.experiment.run_folder import CODE, CODE_DIFF, RunFolder
from jobs.worker.code_diff import code_diff
from jobs.worker.environment import COPY_VERSION, ROOT, code_version

PACKAGES = ("harness", "jobs", "models", "analysis")
ID_DIGITS = 16
COMPILED = "__pycache__"
SEARCHED, SAFE = "PYTHONPATH", "PYTHONSAFEPATH"  # where Python looks first, and that it does not look into the current folder before


class CodeChanged(RuntimeError):
    """The code was edited while a launch copied it."""


def code_files(root: Path) -> Iterator[Path]:
    """The files of the packages below `root`, relative to it, in one sequence."""
    for package in PACKAGES:
        for folder, folders, names in os.walk(root / package):
            folders[:] = sorted(name for name in folders if name != COMPILED and not name.startswith("."))
            yield from (Path(folder, name).relative_to(root) for name in sorted(names) if not name.startswith("."))


@cache
def code_id() -> str:
    """The id of the code of this process."""
    return digest_of(ROOT)


def digest_of(root: Path) -> str:
    """The id of the packages below `root`, from their content."""
    whole = hashlib.sha256()
    for path in code_files(root):
        whole.update(f"{path.as_posix()}\0".encode(errors="surrogateescape"))
        whole.update(hashlib.sha256((root / path).read_bytes()).digest())
    return whole.hexdigest()[:ID_DIGITS]


def keep_code(run: RunFolder) -> Path:
    """The copy of this process's code in a run folder, which is made if it is not there. Raises OSError and CodeChanged.

    The caller holds the launch lock: what killed launches were copying is removed.
    """
    target = run.code_dir / code_id()
    for left in run.code_dir.glob(".*"):
        shutil.rmtree(left, ignore_errors=True)
    if not target.exists():
        aside = run.code_dir / f".{target.name}.{uuid.uuid4().hex}"
        try:
            for path in code_files(ROOT):
                copied(ROOT / path, aside / path)
            if digest_of(aside) != target.name:
                raise CodeChanged(f"the code in {ROOT} was changed while this launch started: nothing was launched; launch again")
            commit, dirty = code_version()
            write_json(aside / COPY_VERSION, {"commit": commit, "dirty": dirty})
            if dirty:
                (aside / CODE_DIFF).write_bytes(code_diff())
            aside.rename(target)
        except (OSError, CodeChanged):
            shutil.rmtree(aside, ignore_errors=True)
            if not target.exists():  # another launch may have been faster
                raise
    return target


def copied(source: Path, target: Path) -> None:
    """Copies a file with its time of change, and what Python has compiled of it, so that no job compiles it again."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)
    compiled = source.parent / COMPILED / f"{source.stem}.{sys.implementation.cache_tag}.pyc"
    if source.suffix == ".py" and compiled.exists():
        (target.parent / COMPILED).mkdir(exist_ok=True)
        shutil.copy2(compiled, target.parent / COMPILED / compiled.name)


def other_code(run: RunFolder) -> Path | None:
    """The copy with which a run was launched, if it is not the code of this process; None too where there is no whole copy."""
    try:
        launched = json.loads((run.path / CODE).read_bytes()).get("code")
    except (OSError, ValueError, AttributeError):
        return None
    if not isinstance(launched, str) or not launched.isalnum() or launched == code_id():
        return None
    copy = run.code_dir / launched
    return copy if copy.is_dir() and digest_of(copy) == launched else None


def described(copy: Path) -> str:
    """A copy in a few words: its commit."""
    try:
        version = json.loads((copy / COPY_VERSION).read_bytes())
    except (OSError, ValueError):
        return "of an unknown commit"
    commit = version.get("commit")
    return f"commit {commit[:12]}{', with changes' if version.get('dirty') else ''}" if commit else "of an unknown commit"


def surroundings_of(copy: Path, before: Mapping[str, str]) -> dict[str, str]:
    """The variables with which a Python process runs a copy. `before`: those that it would have."""
    return {SEARCHED: os.pathsep.join(filter(None, (str(copy.resolve()), before.get(SEARCHED, "")))), SAFE: "1"}


@contextmanager
def running_from(copy: Path) -> Iterator[None]:
    """Processes that start within run a copy."""
    before = {name: os.environ.get(name) for name in (SEARCHED, SAFE)}
    os.environ |= surroundings_of(copy, os.environ)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
