"""Claims: one holder at a time, and none after death."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from jobs.claims import claimed, holder, is_claimed

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
