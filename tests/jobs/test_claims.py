"""Claims: one holder at a time, and none after death."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import claims
from jobs.claims import claimed, holder, is_claimed
from tests.harness.fake_slurm import SILENT, FakeSlurm

HOLD = "import sys, pathlib; from jobs.claims import claimed\nwith claimed(pathlib.Path(sys.argv[1])):\n print('held', flush=True); sys.stdin.read()"


def hold(path: Path) -> "subprocess.Popen[str]":
    """Another process that holds the claim."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_claim_held_elsewhere_is_refused_and_names_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "claims" / "a"
    path.parent.mkdir()
    other = hold(path)
    try:
        assert is_claimed(path)
        assert holder(path).startswith(f"process {other.pid} on ")
        with claimed(path, wait=False) as alone:
            assert not alone
    finally:
        other.kill()
        other.wait()


def test_a_claim_is_free_the_moment_its_holder_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    other = hold(path)
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    assert not is_claimed(path)
    with claimed(path, wait=False) as alone:
        assert alone


def test_a_claim_never_taken_is_free(tmp_path: Path) -> None:
    assert not is_claimed(tmp_path / "nothing")


def left_by(path: Path, job: str) -> Path:
    """A claim that a job of another node never let go of, on a file system that does not show its lock here."""
    path.write_text(json.dumps({"host": "node2", "pid": 1, "job": job}))
    return path


@pytest.mark.parametrize(("state", "held"), [("RUNNING", True), ("COMPLETING", True), ("PENDING", False), ("COMPLETED", False)])
def test_without_a_common_lock_slurms_word_on_the_holders_job_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, held: bool
) -> None:
    FakeSlurm(tmp_path / "slurm", monkeypatch).says("squeue", state)
    claims._lives.cache_clear()
    path = left_by(tmp_path / "a", "17_3")
    assert is_claimed(path) is held and holder(path) == "SLURM job 17_3 on node2"
    with claimed(path, wait=False) as alone:
        assert alone is not held


def test_while_slurm_is_silent_a_jobs_claim_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeSlurm(tmp_path / "slurm", monkeypatch).fails("squeue", SILENT)
    claims._lives.cache_clear()
    assert is_claimed(left_by(tmp_path / "a", "17"))


def test_a_job_that_starts_again_takes_its_own_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slurm = FakeSlurm(tmp_path / "slurm", monkeypatch)
    slurm.says("squeue", "RUNNING")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    with claimed(left_by(tmp_path / "a", "17"), wait=False) as alone:
        assert alone and not slurm.calls("squeue")


def test_a_waiting_claim_is_taken_when_the_other_job_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slurm = FakeSlurm(tmp_path / "slurm", monkeypatch)
    slurm.says("squeue", "RUNNING")
    claims._lives.cache_clear()
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(claims.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(claims.time, "sleep", lambda seconds: slurm.says("squeue", "COMPLETED"))
    with claimed(left_by(tmp_path / "a", "17")) as alone:
        assert alone and len(slurm.calls("squeue")) == 2


def test_a_claim_that_was_let_go_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slurm = FakeSlurm(tmp_path / "slurm", monkeypatch)
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    with claimed(tmp_path / "a"):
        assert json.loads((tmp_path / "a").read_text())["job"] == "17"
    monkeypatch.setenv("SLURM_JOB_ID", "18")
    assert not is_claimed(tmp_path / "a") and not slurm.calls("squeue")
