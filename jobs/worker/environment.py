"""Where and with what a cell ran: code version, packages, machine. Cheap: most of it is read once in a process."""

import json
import os
import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from jobs.experiment.containers import RECORDED
from jobs.experiment.files import sha256_of, this_host
from jobs.experiment.records import Environment

ROOT = Path(__file__).resolve().parents[2]
COPY_VERSION = "version.json"  # of a copy of the code in a run folder (`jobs.worker.code_copy`): what git said of the code
GIT_KEPT = ("GIT_CEILING_DIRECTORIES", "GIT_DISCOVERY_ACROSS_FILESYSTEM", "GIT_EXEC_PATH")  # they do not choose a repository
PACKAGES = ("torch", "deepspeed", "ffcv", "timm", "fvcore", "torch-pruning", "submitit", "numpy", "mamba-ssm", "causal-conv1d", "triton")


def git_bytes(*arguments: str, index: Path | None = None, given: bytes = b"") -> bytes | None:
    """Output of a git command in the project's folder; None outside a repository or without git.

    Variables such as GIT_DIR, which may name another repository, do not count. `index`: a file to use in place of the repository's own index.
    `given`: standard input.
    """
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name in GIT_KEPT}
    variables |= {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"} | ({"GIT_INDEX_FILE": str(index)} if index else {})
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        return subprocess.run(command, input=given, capture_output=True, timeout=60, check=True, env=variables).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def git(*arguments: str) -> str | None:
    """Output of a git command in the project's folder, as text; None outside a repository or without git."""
    output = git_bytes(*arguments)
    return None if output is None else output.decode("utf-8", "backslashreplace").strip()


def code_version() -> tuple[str | None, bool | None]:
    """The commit of the running code, and whether files differ from it or are new; None where that is not known.

    A copy of the project inside another repository has no version: that repository's commit says nothing about this code. A copy in a run folder
    has that of the launch which made it.
    """
    if (ROOT / COPY_VERSION).exists():
        version = json.loads((ROOT / COPY_VERSION).read_bytes())
        return version["commit"], version["dirty"]
    top = git_bytes("rev-parse", "--show-toplevel")
    if top is None or Path(os.fsdecode(top.rstrip(b"\n"))).resolve() != ROOT.resolve():
        return None, None
    commit = git("rev-parse", "HEAD")
    if commit is None:
        return None, None
    changes = git("status", "--porcelain", "--untracked-files=normal", "--ignore-submodules=none")
    return commit, None if changes is None else bool(changes)


@cache
def running_version() -> tuple[str | None, bool | None]:
    """That which the first record of this process found: what changes in the files afterwards does not run."""
    return code_version()


@cache
def package_versions() -> dict[str, str]:
    """Installed versions of the packages that can change a result."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


@cache
def scan_build() -> dict[str, str]:
    """The variant of the C++ scan that this CPU runs and the digest of its file, under one name; empty where none is built."""
    from models.ssm.kernel import kernel_path, runnable_variants

    variant = next(iter(runnable_variants()), None)
    path = kernel_path(variant) if variant else None
    return {"scan kernel": f"{variant} {sha256_of(path)[:8]}"} if path else {}


@cache
def cpu_name() -> str:
    """The CPU's name and its widest vector instructions, as Linux reports them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = fields.get("flags", "").split()
    width = next((name for name in ("avx512f", "avx2") if name in flags), platform.machine())
    return f"{fields.get('model name', platform.machine())} ({width})"


def current_environment(*, ranks: int, threads: int, loader: str, scan: str, data_sha256: str) -> Environment:
    """Everything about this process that can change a result."""
    import torch

    from jobs.parallel.precision import uses_tf32
    from jobs.worker.code_copy import code_id

    commit, dirty = running_version()
    versions = package_versions()
    return Environment(
        commit=commit,
        dirty=dirty,
        code=code_id(),
        python=sys.version.split()[0],
        versions=versions | scan_build(),
        host=this_host(),
        cpu=cpu_name(),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        ranks=ranks,
        threads=threads,
        loader=f"{loader} {versions.get(loader, '?')}",
        scan=scan,
        data_sha256=data_sha256,
        container=os.environ.get(RECORDED),
        tf32=uses_tf32() if torch.cuda.is_available() else None,
    )
