"""Claims: one holder at a time, and no claim outlives its holder."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.cluster import claims
from jobs.cluster.claims import Holder, claimed, holder, is_claimed
from tests.support.fake_slurm import SILENT, FakeSlurm
from tests.support.waiting import PATIENCE_S, wait_until

FOREVER_S = 1e6  # a lease that no pause of a busy machine is as long as

# A holder on a host of another name. "unseen": no other process sees its lock, as on file systems that keep locks within one node.
ELSEWHERE = """import fcntl, os, pathlib, socket, sys, time
from jobs.cluster import claims
if sys.argv[2] == "unseen":
    fcntl.flock = lambda *_: None
socket.gethostname = lambda: "node2"
claims.BEAT_S = 0.2
with claims.claimed(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
HOLD = """import sys, pathlib; from jobs.cluster.claims import claimed
with claimed(pathlib.Path(sys.argv[1])):
    print('held', flush=True); sys.stdin.read()"""


def start_holder(path: Path) -> "subprocess.Popen[str]":
    """Another process that holds the claim."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_claim_held_elsewhere_is_refused_and_names_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "claims" / "a"
    path.parent.mkdir()
    other = start_holder(path)
    try:
        assert is_claimed(path)
        assert str(holder(path)).startswith(f"process {other.pid} on ")
        with claimed(path, wait=False) as alone:
            assert not alone
    finally:
        other.kill()
        other.wait()


def test_a_claim_is_free_the_moment_its_holder_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    other = start_holder(path)
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    assert not is_claimed(path)
    with claimed(path, wait=False) as alone:
        assert alone


def test_a_claim_never_taken_is_free(tmp_path: Path) -> None:
    assert not is_claimed(tmp_path / "nothing")


def left_by(path: Path, job: str | None, *, host: str = "node2", heard_s: float = 60.0) -> Path:
    """A claim that a process of another node has not let go, with its last sign of life so long ago. Its lock is not visible here."""
    path.write_text(json.dumps({"host": host, "pid": 1, "job": job, "attempt": 0, "key": "a"}) + "\n")
    os.utime(path, (time.time() - heard_s, time.time() - heard_s))
    return path


@pytest.mark.parametrize(("state", "held"), [("RUNNING", True), ("COMPLETING", True), ("PENDING", False), ("COMPLETED", False)])
def test_without_a_common_lock_the_state_of_the_holders_job_in_slurm_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, held: bool
) -> None:
    FakeSlurm(tmp_path / "slurm", monkeypatch).says("squeue", state)
    claims._on_nodes.cache_clear()
    path = left_by(tmp_path / "a", "17_3")
    assert is_claimed(path) is held and str(holder(path)) == "SLURM job 17_3 on node2"
    with claimed(path, wait=False) as alone:
        assert alone is not held


def test_while_slurm_is_silent_a_jobs_claim_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeSlurm(tmp_path / "slurm", monkeypatch).fails("squeue", SILENT)
    claims._on_nodes.cache_clear()
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
    claims._on_nodes.cache_clear()
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(claims.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(claims.time, "sleep", lambda seconds: slurm.says("squeue", "COMPLETED"))
    with claimed(left_by(tmp_path / "a", "17")) as alone:
        assert alone and len(slurm.calls("squeue")) == 2


def test_a_claim_that_was_let_go_needs_no_question_to_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slurm = FakeSlurm(tmp_path / "slurm", monkeypatch)
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    with claimed(tmp_path / "a"):
        assert json.loads((tmp_path / "a").read_text())["job"] == "17"
    monkeypatch.setenv("SLURM_JOB_ID", "18")
    assert not is_claimed(tmp_path / "a") and not slurm.calls("squeue")


@pytest.fixture
def left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> "Iterator[subprocess.Popen[str]]":
    """A living process of job 17 on another node, which holds `tmp_path / "a"`. SLURM has given up the node. "unseen" by default."""
    FakeSlurm(tmp_path / "slurm", monkeypatch).says("squeue", "PENDING")
    claims._on_nodes.cache_clear()
    monkeypatch.setattr(claims, "LEASE_S", FOREVER_S)
    environment = {**os.environ, "SLURM_JOB_ID": "17", "SLURM_RESTART_COUNT": "0"}
    command = [sys.executable, "-c", ELSEWHERE, str(tmp_path / "a"), getattr(request, "param", "unseen")]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def becomes(monkeypatch: pytest.MonkeyPatch, job: str, attempt: int) -> None:
    """This process belongs to a job from now on."""
    monkeypatch.setenv("SLURM_JOB_ID", job)
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(attempt))
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)


@pytest.mark.parametrize("left", ["seen", "unseen"], indirect=True)
def test_a_job_that_slurm_started_again_elsewhere_ends_its_previous_attempt_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: "subprocess.Popen[str]"
) -> None:
    becomes(monkeypatch, "17", 1)
    with claimed(tmp_path / "a", wait=False) as alone:
        assert not alone, "its first attempt is alive"
    monkeypatch.setattr(claims, "LEASE_S", 1.0)
    with claimed(tmp_path / "a"):
        assert left.wait(PATIENCE_S) == claims.SUPERSEDED
        assert str(holder(tmp_path / "a")).startswith("SLURM job 17 on ")
    message = left.communicate()[1]
    assert "a now belongs to SLURM job 17 on " in message and "SLURM has given up this attempt, and this process exits" in message
    assert not is_claimed(tmp_path / "a")


def test_a_sign_of_life_keeps_a_claim_from_other_jobs_although_slurm_has_given_its_node_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: "subprocess.Popen[str]"
) -> None:
    becomes(monkeypatch, "18", 3)
    os.utime(tmp_path / "a", (0, 0))  # so long ago that it counts as dead without signs of life
    wait_until(lambda: (tmp_path / "a").stat().st_mtime > 0, "a sign of life")
    with claimed(tmp_path / "a", wait=False) as alone:
        assert not alone
    assert is_claimed(tmp_path / "a") and left.poll() is None, "only its own job may ask it to exit"
    left.kill()
    left.wait()
    os.utime(tmp_path / "a", (0, 0))
    with claimed(tmp_path / "a", wait=False) as alone:
        assert alone


def test_a_holder_that_returns_to_a_claim_of_another_process_exits_and_leaves_it_alone(tmp_path: Path, left: "subprocess.Popen[str]") -> None:
    os.kill(left.pid, signal.SIGSTOP)  # as a file system that hangs does
    path = left_by(tmp_path / "a", "18")
    os.kill(left.pid, signal.SIGCONT)
    assert left.wait(PATIENCE_S) == claims.SUPERSEDED and str(holder(path)) == "SLURM job 18 on node2"


def test_an_attempt_never_asks_a_later_attempt_to_exit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "LEASE_S", FOREVER_S)
    later = {"host": "node3", "pid": 1, "job": "17", "attempt": 1, "key": "b"}
    (tmp_path / "a").write_text(json.dumps(later) + "\n")
    becomes(monkeypatch, "17", 0)
    with claimed(tmp_path / "a", wait=False) as alone:
        assert not alone
    assert json.loads((tmp_path / "a").read_text()) == later


def test_on_the_same_machine_the_lock_alone_decides(tmp_path: Path) -> None:
    with claimed(left_by(tmp_path / "a", None, host=socket.gethostname(), heard_s=0.0), wait=False) as alone:
        assert alone


def test_a_look_at_a_claim_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "LEASE_S", FOREVER_S)
    path = left_by(tmp_path / "a", None, heard_s=0.0)
    assert is_claimed(path) and path.read_text().count("\n") == 1
    os.utime(path, (0, 0))
    assert not is_claimed(path)


@pytest.mark.parametrize(
    ("me", "other", "later"),
    [
        (("17", 1), ("17", 0), True),
        (("17", 1), ("17", 1), False),
        (("17", 0), ("17", 1), False),
        (("18", 1), ("17", 0), False),
        ((None, 1), (None, 0), False),
    ],
)
def test_only_a_later_attempt_at_the_same_job_supersedes(me: tuple[str | None, int], other: tuple[str | None, int], later: bool) -> None:
    assert Holder(job=me[0], attempt=me[1]).supersedes(Holder(job=other[0], attempt=other[1])) is later


def test_a_second_process_of_the_same_attempt_waits_and_asks_no_process_to_exit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: "subprocess.Popen[str]"
) -> None:
    becomes(monkeypatch, "17", 0)
    before = (tmp_path / "a").read_text()
    with claimed(tmp_path / "a", wait=False) as alone:
        assert not alone and (tmp_path / "a").read_text() == before
    assert left.poll() is None


def test_a_request_to_exit_is_written_once_and_is_no_sign_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeSlurm(tmp_path / "slurm", monkeypatch)
    monkeypatch.setattr(claims, "LEASE_S", FOREVER_S)
    becomes(monkeypatch, "17", 1)
    path = left_by(tmp_path / "a", "17", heard_s=1000.0)
    last_sign = path.stat().st_mtime_ns
    for _ in range(2):
        with claimed(path, wait=False) as alone:
            assert not alone
        assert path.stat().st_mtime_ns == last_sign
        assert [json.loads(line)["attempt"] for line in path.read_text().splitlines()] == [0, 1]


def test_a_process_that_waits_for_a_claim_does_not_keep_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = left_by(tmp_path / "a", None, heard_s=0.0)
    monkeypatch.setattr(claims, "LEASE_S", FOREVER_S)

    def lock_of_another_process() -> None:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError if it is taken
            fcntl.flock(file, fcntl.LOCK_UN)

    def let_go(seconds: float) -> None:
        lock_of_another_process()
        path.write_text("")

    with claimed(path, wait=False) as alone:
        assert not alone
        lock_of_another_process()
    assert is_claimed(path)
    lock_of_another_process()
    monkeypatch.setattr(claims.time, "sleep", let_go)
    with claimed(path) as alone:
        assert alone
        with pytest.raises(BlockingIOError):
            lock_of_another_process()
    lock_of_another_process()


def test_a_claim_with_bytes_of_any_kind_is_free_once_its_holder_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "claim"
    path.write_bytes(b'\xff\xfe {"host": 3}\n[]\n{"pid"')
    assert not is_claimed(path) and str(holder(path)) == "another process"
    with claimed(path, wait=False) as alone:
        assert alone
