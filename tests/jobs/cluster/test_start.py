"""A task of a SLURM job starts whatever a killed attempt has left, and leaves its node once when SLURM signals."""

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.cluster.slurm_arrays import dump
from jobs.cluster.submitit_jobs import ResumableCall
from tests.support.waiting import PATIENCE_S

ROOT = Path(__file__).parents[3]


class Restless:
    """Signals its process whenever it is pickled there."""

    def __init__(self, maker: int = 0) -> None:
        self.maker = maker  # the process that made it, which is not to be signalled

    def __reduce__(self) -> tuple[Any, ...]:
        if os.getpid() != self.maker:
            os.kill(os.getpid(), signal.SIGUSR2)
        return Restless, (self.maker,)


def leave(argument: object) -> None:
    """A function that SLURM wants to end."""
    os.kill(os.getpid(), signal.SIGUSR2)


class Late:
    """Signals its process when that has nothing left to do but to clear its modules away."""

    def __del__(self, kill: Callable[[int, int], None] = os.kill, pid: Callable[[], int] = os.getpid) -> None:
        kill(pid(), signal.SIGUSR2)


def end(argument: object) -> None:
    """A function that ends well before the signal comes."""
    sys.modules["late"] = Late()  # type: ignore[assignment]


@pytest.fixture
def call(tmp_path: Path) -> Path:
    """The pickled call of a job, 17_3."""
    path = tmp_path / "17_3_submitted.pkl"
    dump(ResumableCall(function=print, argument="it ran"), path, 60, 1000)
    return path


def start(folder: Path) -> "subprocess.CompletedProcess[str]":
    """The first task of job 17_3, ended. `scontrol` and `squeue` note how they were called."""
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    for name in ("scontrol", "squeue"):
        (tools / name).write_text(f'#!/bin/sh\necho {name} "$@" >>{folder}/asked\n')
        (tools / name).chmod(0o755)
    slurm = {
        "JOB_ID": "20",
        "ARRAY_JOB_ID": "17",
        "ARRAY_TASK_ID": "3",
        "NTASKS": "1",
        "JOB_NUM_NODES": "1",
        "PROCID": "0",
        "LOCALID": "0",
        "NODEID": "0",
    }
    environment = os.environ | {f"SLURM_{key}": value for key, value in slurm.items()}
    environment |= {"SUBMITIT_EXECUTOR": "slurm", "PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "jobs.cluster.start", str(folder)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def result(folder: Path) -> str:
    """The outcome that the first task has written."""
    return str(pickle.loads((folder / "17_3_0_result.pkl").read_bytes())[0])


def test_a_task_that_was_killed_while_it_wrote_starts_again(call: Path) -> None:
    call.rename(f"{call}.save_tmp")  # the old file removed, the new file not yet renamed
    (call.parent / "17_3_0_result.pkl.save_tmp").write_bytes(b"half a pick")
    ended = start(call.parent)
    assert ended.returncode == 0 and "it ran" in ended.stdout and result(call.parent) == "success", ended.stderr
    assert not list(call.parent.glob("*.save_tmp")) and call.exists()


def test_a_half_written_call_is_not_used(call: Path) -> None:
    Path(f"{call}.save_tmp").write_bytes(call.read_bytes()[:-9])
    ended = start(call.parent)
    assert ended.returncode == 0 and "it ran" in ended.stdout, ended.stderr
    assert not list(call.parent.glob("*.save_tmp"))


def test_a_task_that_is_signalled_twice_leaves_once(tmp_path: Path) -> None:
    path = tmp_path / "17_3_submitted.pkl"
    dump(ResumableCall(function=leave, argument=Restless(os.getpid())), path, 60, 1000)
    ended = start(tmp_path)
    asked = (tmp_path / "asked").read_text().splitlines()
    assert ended.returncode == 255 and [line for line in asked if line.startswith("scontrol")] == ["scontrol requeue 17_3"], (
        ended.stdout + ended.stderr
    )
    assert not (tmp_path / "17_3_0_result.pkl").exists() and not list(tmp_path.glob("*.save_tmp"))
    assert pickle.loads(path.read_bytes()).function.function is leave


def test_a_task_that_has_ended_is_not_killed_by_a_late_signal(tmp_path: Path) -> None:
    dump(ResumableCall(function=end, argument=None), tmp_path / "17_3_submitted.pkl", 60, 1000)
    ended = start(tmp_path)
    assert ended.returncode == 0 and result(tmp_path) == "success" and not (tmp_path / "asked").exists(), ended.stdout + ended.stderr
