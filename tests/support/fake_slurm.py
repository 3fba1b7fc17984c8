"""SLURM's commands as scripts on PATH. Each notes how it was called, then prints what the test has set."""

import os
from pathlib import Path

import pytest

SCRIPT = """#!/bin/sh
name=$(basename "$0")
echo "$name $*" >> {folder}/calls
if [ -f {folder}/$name.fails ]; then cat {folder}/$name.fails >&2; [ -f {folder}/$name.once ] && rm {folder}/$name.fails; exit 1; fi
[ -f {folder}/$name.says ] && cat {folder}/$name.says
exit 0
"""


class FakeSlurm:
    """A SLURM whose answers are set by the test."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        folder.mkdir()
        for name in ("squeue", "sacct", "sacctmgr", "sbatch", "scancel", "scontrol", "sinfo"):
            (folder / name).write_text(SCRIPT.format(folder=folder))
            (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

    def says(self, name: str, *lines: str) -> None:
        """Sets what a command prints from now on."""
        (self.folder / f"{name}.says").write_text("".join(f"{line}\n" for line in lines))
        (self.folder / f"{name}.fails").unlink(missing_ok=True)

    def fails(self, name: str, message: str, *, once: bool = False) -> None:
        """Lets a command fail with a message, always or once."""
        (self.folder / f"{name}.fails").write_text(message + "\n")
        if once:
            (self.folder / f"{name}.once").touch()

    def queue(self, **states: str) -> None:
        """Sets the jobs that squeue lists: j17_0="RUNNING", j18="PENDING:Dependency", j19="PENDING:Priority@2026-11-28T21:30:00"."""
        lines = []
        for job, state in states.items():
            known, _, start = state.partition("@")
            word, _, reason = known.partition(":")
            nodes = "node1" if word == "RUNNING" else ""
            lines.append(f"{job[1:]}|{word}|1:05|{nodes}|{start or 'N/A'}|{reason or 'None'}")
        self.says("squeue", *lines)

    def calls(self, name: str) -> list[str]:
        """The arguments of every call of a command, first call first."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.partition(" ")[2] for line in lines if line.partition(" ")[0] == name]


SILENT = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
