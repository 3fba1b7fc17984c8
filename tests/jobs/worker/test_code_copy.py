"""The code that a run folder keeps, and that its jobs run."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from harness.launch import runs_copy
from jobs.experiment.run_folder import RunFolder
from jobs.experiment.specs import ClusterSpec
from jobs.worker import code_copy, code_diff, environment
from jobs.worker.code_copy import (
    PACKAGES,
    CodeChanged,
    code_files,
    code_id,
    described,
    digest_of,
    keep_code,
    other_code,
    running_from,
    surroundings_of,
)
from tests.support import processes
from tests.support.waiting import PATIENCE_S

ROOT = Path(__file__).parents[3]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small project in the place of ours."""
    root = tmp_path / "project"
    for package in PACKAGES:
        (root / package / "__pycache__").mkdir(parents=True)
        (root / package / "a.py").write_text("1\n")
        (root / package / "__pycache__" / f"a.{sys.implementation.cache_tag}.pyc").write_bytes(b"compiled")
    (root / "jobs" / "_built.so").write_bytes(b"\x7fELF")
    (root / "unrelated.txt").write_text("not code")
    for module in (code_copy, environment):
        monkeypatch.setattr(module, "ROOT", root)
    monkeypatch.setattr(code_copy, "code_version", lambda: ("c0ffee0123456789", True))
    monkeypatch.setattr(code_copy, "code_diff", lambda: b"a difference")
    code_id.cache_clear()
    yield root
    code_id.cache_clear()


def edit(project: Path) -> None:
    (project / "jobs" / "a.py").write_text("2\n")
    code_id.cache_clear()


def launched(run: RunFolder) -> Path:
    """A run folder after a launch."""
    copy = keep_code(run)
    (run.path / "code.json").write_text(json.dumps({"code": code_id()}))
    return copy


def test_a_copy_has_the_code_what_was_built_and_what_git_said(project: Path, tmp_path: Path) -> None:
    copy = keep_code(RunFolder(tmp_path / "run"))
    assert copy.name == code_id() == digest_of(copy) and list(code_files(copy)) == list(code_files(project))
    assert (copy / "jobs" / "_built.so").exists() and not (copy / "unrelated.txt").exists()
    assert (copy / "jobs" / "a.py").stat().st_mtime_ns == (project / "jobs" / "a.py").stat().st_mtime_ns, "what is compiled stays valid"
    assert (copy / "jobs" / "__pycache__" / f"a.{sys.implementation.cache_tag}.pyc").exists()
    assert described(copy) == "commit c0ffee012345, with changes" and (copy / "code.diff").read_bytes() == b"a difference"


def test_equal_code_is_kept_once_and_an_edit_beside_it(project: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    first = keep_code(run)
    assert keep_code(run) == first
    edit(project)
    (run.code_dir / ".0123456789abcdef.killed" / "jobs").mkdir(parents=True)
    assert keep_code(run) != first and len(list(run.code_dir.iterdir())) == 2
    assert (first / "jobs" / "a.py").read_text() == "1\n"


def test_a_copy_that_is_cut_short_leaves_nothing(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(code_copy, "copied", full)
    run = RunFolder(tmp_path / "run")
    with pytest.raises(OSError, match="No space"):
        keep_code(run)
    assert not run.code_dir.exists() or not list(run.code_dir.iterdir())


def test_an_edit_while_the_code_is_copied_is_not_kept_under_the_name_of_the_code_before(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = code_copy.copied

    def edited_meanwhile(source: Path, target: Path) -> None:
        whole(source, target)
        (project / "models" / "a.py").write_text("pulled meanwhile\n")

    monkeypatch.setattr(code_copy, "copied", edited_meanwhile)
    run = RunFolder(tmp_path / "run")
    with pytest.raises(CodeChanged, match="launch again"):
        keep_code(run)
    assert not list(run.code_dir.iterdir())
    code_id.cache_clear()
    assert digest_of(keep_code(run)) == code_id(), "the next launch"


def test_only_a_whole_copy_of_other_code_is_gone_on_with(project: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    assert other_code(run) is None, "nothing was launched"
    copy = launched(run)
    assert other_code(run) is None, "it is this code"
    edit(project)
    assert other_code(run) == copy
    (copy / "jobs" / "a.py").write_text("3\n")
    assert other_code(run) is None, "somebody changed the copy"
    for content in ("{", "[]", '{"commit": "a"}', '{"code": "../../elsewhere"}', '{"code": "0123456789abcdef"}'):
        (run.path / "code.json").write_text(content)
        assert other_code(run) is None


def test_a_process_that_runs_a_copy_knows_the_version_of_the_launch(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = keep_code(RunFolder(tmp_path / "run"))
    monkeypatch.setattr(environment, "ROOT", copy)
    assert environment.code_version() == ("c0ffee0123456789", True) and code_diff.code_diff() == b"a difference"
    (copy / "code.diff").unlink()
    assert code_diff.code_diff() == b""


def test_the_copy_comes_before_the_users_own_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/mine")
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    with running_from(tmp_path):
        assert os.environ["PYTHONPATH"] == f"{tmp_path}:/mine" and os.environ["PYTHONSAFEPATH"] == "1"
    assert os.environ["PYTHONPATH"] == "/mine" and "PYTHONSAFEPATH" not in os.environ
    assert surroundings_of(tmp_path, {}) == {"PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "1"}


def test_jobs_on_a_cluster_keep_the_shells_own_paths_behind_the_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/mine")
    assert runs_copy(ClusterSpec(kind="slurm"), tmp_path).environment["PYTHONPATH"] == f"{tmp_path}:/mine"
    profile = ClusterSpec(kind="slurm", environment={"PYTHONPATH": "/profile", "A": "1"})
    assert runs_copy(profile, tmp_path).environment == {"PYTHONPATH": f"{tmp_path}:/profile", "PYTHONSAFEPATH": "1", "A": "1"}


def test_a_copy_without_its_version_is_named_all_the_same(tmp_path: Path) -> None:
    assert described(tmp_path) == "of an unknown commit"


GRID = {
    "name": "kept",
    "data": {"source": "synthetic", "samples": 40, "classes": 2, "loader": "torch"},
    "recipe": {"epochs": 1, "finetune_epochs": 0, "batch_size": 16, "warmup_epochs": 0},
    "models": [{"name": "vim_micro", "dim": 8, "depth": 1}],
    "pruning": ["dense"],
}


@pytest.mark.slow
def test_an_edit_after_the_launch_changes_nothing_unless_new_code_is_asked_for(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, clone / package)
    grid = tmp_path / "grid.yaml"

    def launch(*options: str) -> subprocess.CompletedProcess[str]:
        cluster = {"kind": "local", "max_parallel": 1, "profile_s": 0.001, "profile_batch": 2, "cache": str(tmp_path / "cache")}
        grid.write_text(yaml.safe_dump(GRID | {"cluster": cluster, "seeds": [0]}))
        command = [sys.executable, "-m", "harness.launch", str(grid), "--runs", str(tmp_path / "runs"), *options]
        mine = processes.environment() | {"PYTHONPATH": str(clone)}
        return subprocess.run(command, cwd=clone, env=mine, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    first = launch()
    assert first.returncode == 0, first.stdout + first.stderr
    (copy,) = (tmp_path / "runs" / "kept" / "code").iterdir()
    (record,) = (tmp_path / "runs" / "kept" / "cells").glob("*/record.json")
    assert json.loads(record.read_bytes())["environment"]["code"] == copy.name, "the job ran the copy, or equal code"
    with (clone / "harness" / "plan" / "dry_run.py").open("a") as edited:
        edited.write("\n\ndef describe(*arguments: object, **options: object) -> str:\n    return 'this is the edited code'\n")
    again = launch("--dry-run")  # of cells that are done: no network is built, so torch stays away
    assert again.returncode == 0 and f"kept in {copy}" in again.stderr and "--new-code" in again.stderr
    assert "kept: 1 cell (" in again.stdout and "this is the edited code" not in again.stdout
    edited_code = launch("--dry-run", "--new-code")
    assert edited_code.returncode == 0 and "this is the edited code" in edited_code.stdout
