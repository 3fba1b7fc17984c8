"""Python, packages, and the parts that are built on a machine: against the constraints with which the tests ran."""

import re
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path

from harness.health.finding import Finding, error, ok, warning
from harness.text import counted, shortened
from jobs.worker.environment import ROOT

TESTED = ((3, 11), (3, 12), (3, 13), (3, 14))
MATTERS = ("torch", "deepspeed", "timm", "fvcore", "torch-pruning", "submitit", "numpy", "scipy", "triton", "ffcv")  # for numbers, or for jobs
NAMED = 6
PROJECT = "vssm-bench"


def python_version() -> Iterator[Finding]:
    """The interpreter."""
    now, tested = sys.version_info[:2], ", ".join(f"{major}.{minor}" for major, minor in TESTED)
    text = f"Python {sys.version.split()[0]} at {sys.executable}"
    if now < TESTED[0]:
        yield error("python", text, f"use Python {tested}: python3.11 -m venv .venv, then slurm/install.sh")
    elif now not in TESTED:
        yield warning("python", text, f"the tests run with Python {tested}")
    else:
        yield ok("python", text)


def packages(constraints: Path = ROOT / "constraints.txt") -> Iterator[Finding]:
    """The packages that the project needs, and their versions."""
    missing = [name for name in needed() if installed(name) is None]
    if missing:
        yield error("packages", f"not installed: {shortened(missing, NAMED)}", "run slurm/install.sh, or pip install -e . -c constraints.txt")
    pinned = read_constraints(constraints)
    if not pinned:
        yield warning("packages", f"{constraints.name} is not here, so versions are not compared", "install from a clone of the project")
        return
    there = {name: now for name in pinned if (now := installed(name)) is not None}
    other = [f"{name} {there[name]} (tested: {pinned[name]})" for name in there if plain(there[name]) != plain(pinned[name])]
    serious = [text for text in other if text.split()[0].lower() in MATTERS]
    if serious:
        text = f"other versions than those that were tested: {shortened(serious, NAMED)}"
        yield warning("packages", text, f"pip install -c {constraints.name} -e . takes the tested ones; results are compared within one version")
    else:
        differing = f"; {counted(len(other), 'other package')} in another version" if other else ""
        yield ok("packages", f"{counted(len(there), 'package')} as tested{differing}")


def needed() -> list[str]:
    """The packages that the project cannot do without."""
    try:
        stated = requires(PROJECT) or []
    except PackageNotFoundError:
        return []
    return [re.split(r"[^\w.-]", text)[0] for text in stated if "extra" not in text]


def installed(name: str) -> str | None:
    """The version of a package; None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def plain(text: str) -> str:
    """A version without the name of its build: 2.13.0 for 2.13.0+cu130."""
    return text.partition("+")[0]


def read_constraints(path: Path) -> Mapping[str, str]:
    """The tested versions by package; empty without the file."""
    if not path.exists():
        return {}
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return dict(line.split("==", 1) for line in lines if "==" in line)


def built_parts() -> Iterator[Finding]:
    """The C++ libraries of the project, and FFCV."""
    from jobs.data.decoding import BUILD, library

    try:
        yield ok("images", "the C++ decoder is built") if library() else warning("images", "OpenCV and PIL decode, three times slower", BUILD)
    except ImportError as broken:
        yield error("images", str(broken), BUILD)
    if find_spec("ffcv"):
        yield ok("ffcv", f"FFCV {installed('ffcv') or 'of an unknown version'}")
    else:
        yield warning("ffcv", "FFCV is not installed", "set data.loader: torch, or run slurm/install.sh, which builds it")


def scan_kernels() -> Iterator[Finding]:
    """Which kernels would compute the scan here, and whether they compute what they should."""
    import torch

    from models.ssm.backends import PACKAGES, missing_kernels, scan_backend_used
    from models.ssm.check import fault_of

    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        used = scan_backend_used(device, "auto")
    except (ValueError, ImportError) as unusable:
        yield error("kernels", str(unusable), "run slurm/install.sh; on a GPU slurm/install_cuda.sh")
        return
    if missing := missing_kernels(device, used):
        yield error("kernels", missing, "run slurm/install.sh, or set recipe.scan: reference, which is slow")
    elif used in (*PACKAGES, "cpu") and (fault := fault_of(used, device)):
        yield error("kernels", fault, "build them again (slurm/install.sh, slurm/install_cuda.sh)")
    else:
        yield ok("kernels", f"scan: auto runs {used} on {device}, and it agrees with the reference")
