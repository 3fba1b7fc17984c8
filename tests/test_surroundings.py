"""What the environment of a command may decide: the grid decides how a cell is run, and files are in UTF-8 wherever they are written."""

import ast
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.launch import NOTHING_TO_DO
from jobs.experiment.records import read_record
from tests.support.commands import command, written
from tests.support.waiting import PATIENCE_S

ROOT = Path(__file__).parents[1]
GRID = """
name: small
data: {source: synthetic, samples: 64, classes: 2}
recipe: {epochs: 1, finetune_epochs: 0, batch_size: 16}
models: [{name: vim_micro, depth: 1, dim: 16, label: caf\u00e9}]
pruning: [dense]
seeds: [0]
cluster: {kind: local, profile_s: 0.05}
"""
OUTER = {
    "RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29511",
    "MEETING_FILE": "/nowhere/meeting",
    "SLURM_JOB_ID": "17",
    "SLURM_RESTART_COUNT": "2",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "3",
    "SLURMD_NODENAME": "node1",
    "SUBMITIT_EXECUTOR": "slurm",
    "SUBMITIT_FOLDER": "/nowhere",
    "OMP_NUM_THREADS": "7",
    "DS_ACCELERATOR": "cpu",
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONIOENCODING": "ascii:backslashreplace",
    "GIT_DIR": "/nowhere",
    "GIT_WORK_TREE": "/nowhere",
    "GIT_INDEX_FILE": "/nowhere",
    "TMPDIR": "/nowhere",
}
WITHOUT_DOCSTRINGS = {"PYTHONOPTIMIZE": "2"}  # and without assertions; Python then compiles all of torch anew for each process that imports it


@pytest.mark.slow
def test_a_cell_runs_the_same_in_strange_surroundings(tmp_path: Path) -> None:
    """By a local job, and again in the process of `reproduce`, which runs cells as `kind: debug` does."""
    done = started("harness.launch", written(tmp_path, GRID), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.glob("runs/small/cells/*/record.json")
    record = read_record(path)
    assert (record.environment.ranks, record.environment.threads, record.status, record.model) == (1, 1, "done", "caf\u00e9")
    assert '"job"' not in next(tmp_path.glob("runs/small/stages/*/stage.json")).read_text(encoding="utf-8")
    assert started("harness.launch", "grid.yaml", cwd=tmp_path, **WITHOUT_DOCSTRINGS).returncode == NOTHING_TO_DO
    again = started("harness.reproduce", record.id, cwd=tmp_path, **WITHOUT_DOCSTRINGS)
    assert again.returncode == 0 and "reproduced" in again.stdout, again.stdout + again.stderr
    head = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    if shutil.which("git") and (ROOT / ".git").exists():
        assert record.environment.commit == subprocess.run(head, capture_output=True, text=True, check=True).stdout.strip()


def started(module: str, *arguments: object, cwd: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    """The ended process of a command in these surroundings."""
    variables = os.environ | OUTER | variables
    return subprocess.run(command(module, *arguments), cwd=cwd, env=variables, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


@pytest.mark.parametrize("module", ["harness.launch", "harness.status", "harness.logs", "harness.cancel", "harness.reproduce", "harness", "analysis"])
def test_every_command_shows_its_help_without_docstrings(module: str, tmp_path: Path) -> None:
    shown = started(module, "--help", cwd=tmp_path, **WITHOUT_DOCSTRINGS)
    assert shown.returncode == 0 and "usage" in shown.stdout + "usage" * (module == "harness"), shown.stderr


def test_every_file_is_opened_as_bytes_or_with_its_encoding() -> None:
    """The encoding of the locale is that of one machine, and the files of a run are read on others."""
    paths = [path for floor in ("harness", "jobs", "analysis", "models") for path in (ROOT / floor).rglob("*.py")]
    calls = [(path, node) for path in paths for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    assert len(paths) > 100
    assert [f"{path}:{node.lineno}" for path, node in calls if opens_text(node) and "encoding" not in {word.arg for word in node.keywords}] == []


def opens_text(call: ast.Call) -> bool:
    """True for a call that opens a file as text."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id if isinstance(call.func, ast.Name) else ""
    if name in ("read_text", "write_text"):
        return isinstance(call.func, ast.Attribute)  # jobs.experiment.files.write_text is a function, and writes UTF-8
    owner = call.func.value if isinstance(call.func, ast.Attribute) else None
    if name != "open" or (isinstance(owner, ast.Name) and owner.id in ("os", "Image", "tarfile")):
        return False
    return not any(isinstance(value, ast.Constant) and "b" in str(value.value) for value in (*call.args, *(word.value for word in call.keywords)))
