"""The rehearsal of a large grid, small and without SLURM."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_step_of_a_rehearsal_is_timed_and_succeeds() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "SLURM_CONF"} | {"PATH": "/nowhere"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.rehearsal", "40"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "exit code" not in done.stdout, done.stdout + done.stderr
    assert "no SLURM" in done.stdout and "40 of 40 cells done" in done.stdout
    assert len(re.findall(r"^(plan|status|merge|the same).* +[\d.]+ +[\d.]+$", done.stdout, re.MULTILINE)) == 4, done.stdout
