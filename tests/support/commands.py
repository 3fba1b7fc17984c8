"""Commands as a user types them: real processes, on a small grid that trains."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.support.waiting import PATIENCE_S

SMALL = "{name: vim_micro, depth: 1, dim: 32}"
GRID = f"""
name: small
recipe: {{epochs: 2, finetune_epochs: 1}}
models: [{SMALL}]
pruning: [dense, {{method: magnitude, sparsity: 0.9}}]
seeds: [0]
cluster: {{kind: local, max_parallel: 2, stages_per_job: 3, profile_s: 0.001, profile_batch: 2}}
"""


def command(module: str, *arguments: object) -> list[str]:
    """A command of ours, as a user types it."""
    return [sys.executable, "-m", module, *map(str, arguments)]


def run(module: str, *arguments: object, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """The ended process of a command, run where a user might stand: not in the project's folder."""
    return subprocess.run(command(module, *arguments), cwd=cwd, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def written(tmp_path: Path, text: str, name: str = "grid.yaml") -> Path:
    """A grid file."""
    path = tmp_path / name
    path.write_text(text)
    return path


def wait_for(condition: Callable[[], object], process: "subprocess.Popen[str]") -> None:
    """Returns when `condition()` holds; fails when the process ends first."""
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def processes_of(tmp_path: Path) -> list[psutil.Process]:
    """Every process that works for a run folder under `tmp_path`."""
    working = []
    for process in psutil.process_iter(["cmdline"]):
        if process.pid != os.getpid() and any(str(tmp_path) in word for word in process.info["cmdline"] or ()):
            working.append(process)
    return working
