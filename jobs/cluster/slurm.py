"""Questions and orders to SLURM by its own commands, with patience: a controller that is down for a minute is no answer. Stdlib alone."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable

PATIENCE_S = 120.0  # that a controller may be down before a command gives up: starting it anew takes a minute or more
PAUSE_S = 3.0
SILENT = re.compile(
    r"unable to contact slurm|connection (refused|timed out|reset)|socket timed out|zero bytes|communication connection failure"
    r"|unexpected message|slurmctld.*not respond|backup controller|in standby mode|no route to host|resource temporarily unavailable",
    re.IGNORECASE,
)
# A job in one of these has processes on nodes, or is about to have or to lose them.
ON_NODES = frozenset({"CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"})
# SLURM still has a job in one of these, and will run it.
WAITING = frozenset({"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"})


class SchedulerError(RuntimeError):
    """SLURM has refused what it was asked; the message is its own."""


class SchedulerSilent(SchedulerError):
    """The controller does not answer: nothing is known about any job, least of all that it is gone."""


def complain(text: str) -> None:
    """Says something to who waits."""
    print(text, file=sys.stderr, flush=True)


def ask(*command: str, patience_s: float = PATIENCE_S, say: Callable[[str], None] = complain) -> str:
    """What a SLURM command prints. Asks again while the controller does not answer.

    Raises SchedulerSilent when it is silent after `patience_s` seconds, SchedulerError when it answers with an error or there is no such command.
    """
    until, told = time.monotonic() + patience_s, False
    while True:
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
        except FileNotFoundError as error:
            raise SchedulerError(f"there is no {command[0]} on this machine; run this on a login node") from error
        if done.returncode == 0:
            return done.stdout
        message = done.stderr.strip() or f"{command[0]} ended with {done.returncode}"
        if not SILENT.search(message):
            raise SchedulerError(f"{' '.join(command[:2])}: {message}")
        if time.monotonic() >= until:
            raise SchedulerSilent(f"SLURM's controller does not answer ({message.splitlines()[-1]})")
        if not told:
            say(f"SLURM's controller does not answer; asking again for up to {patience_s:.0f} s ...")
            told = True
        time.sleep(min(PAUSE_S, max(0.0, until - time.monotonic())))


def available() -> bool:
    """True when this machine has SLURM's commands."""
    return shutil.which("squeue") is not None


def this_job() -> str | None:
    """The SLURM job that this process belongs to, 17 or 17_3 in an array; None outside of one."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def restarts() -> int:
    """How often SLURM has started this job before; 0 outside of one."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))


def on_nodes(job: str, patience_s: float = 0.0) -> bool | None:
    """True while a job may have living processes; False when it waits, has ended or is unknown to SLURM; None when SLURM does not answer."""
    try:
        states = ask("squeue", "--noheader", "--array", "--states=all", "--format=%T", f"--jobs={job}", patience_s=patience_s, say=lambda text: None)
    except SchedulerSilent:
        return None
    except SchedulerError as error:
        return None if available() and "nvalid job id" not in str(error) else False
    return any(state in ON_NODES for state in states.split())


def requeue(job: str, without: Iterable[str] = ()) -> bool:
    """True when SLURM takes a running job back into its queue, to start it again on other nodes than those named. Its processes are then killed."""
    try:
        ask("scontrol", "requeue", job)
    except SchedulerError as error:
        complain(f"job {job} is not queued again: {error}")
        return False
    leave_out(job, without)
    return True


def leave_out(job: str, nodes: Iterable[str]) -> None:
    """Keeps a waiting job, or what waits of an array, off these nodes and no others; says so where SLURM refuses, as it does for what has begun."""
    excluded = ",".join(dict.fromkeys(nodes))
    if not excluded:
        return
    try:
        ask("scontrol", "update", f"JobId={job}", f"ExcNodeList={excluded}")
    except SchedulerError as error:
        complain(f"job {job} may still start on {excluded}: {error}")
