"""SLURM through its own commands, with patience: a controller that is down for a minute is waited for. Imports the standard library alone."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable

from jobs.cluster.surroundings import slurm_variables

PATIENCE_S = 120.0  # how long a command asks a controller that is down: restarting it takes a minute or more
PAUSE_S = 3.0  # between two attempts
SILENT = re.compile(
    r"unable to contact slurm|connection (refused|timed out|reset)|socket timed out|zero bytes|communication connection failure"
    r"|unexpected message|slurmctld.*not respond|backup controller|in standby mode|no route to host|resource temporarily unavailable",
    re.IGNORECASE,
)
NO_CLUSTER = re.compile(r"fatal: (could not establish a configuration source|unable to process configuration file)", re.IGNORECASE)
# In these states a job has processes on nodes, or is about to get or lose them.
ON_NODES = frozenset({"CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"})
# In these states a job waits, and SLURM will run it.
WAITING = frozenset({"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"})


class SchedulerError(RuntimeError):
    """SLURM has refused a command; the message is SLURM's."""


class SchedulerSilent(SchedulerError):
    """SLURM's controller does not answer, so nothing is known about any job; in particular, not that a job is gone."""


def complain(text: str) -> None:
    """Prints a message to stderr at once."""
    print(text, file=sys.stderr, flush=True)


def ask(*command: str, patience_s: float = PATIENCE_S, say: Callable[[str], None] = complain) -> str:
    """The output of a SLURM command, which is repeated while the controller does not answer.

    Raises SchedulerSilent if the controller does not answer within `patience_s` seconds, and SchedulerError if it answers with an error, or if this
    machine does not have the command.
    """
    until, announced = time.monotonic() + patience_s, False
    while True:
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=slurm_variables())
        except FileNotFoundError as error:
            raise SchedulerError(f"there is no {command[0]} on this machine; run this on a login node") from error
        if done.returncode == 0:
            return done.stdout
        message = done.stderr.strip() or f"{command[0]} ended with {done.returncode}"
        if NO_CLUSTER.search(message):
            raise SchedulerError(f"{command[0]} finds no cluster from this machine ({message.splitlines()[-1]}); run this on a login node")
        if not SILENT.search(message):
            raise SchedulerError(f"{' '.join(command[:2])}: {message}")
        if time.monotonic() >= until:
            raise SchedulerSilent(f"SLURM's controller does not answer ({message.splitlines()[-1]})")
        if not announced:
            say(f"SLURM's controller does not answer; asking again for up to {patience_s:.0f} s ...")
            announced = True
        time.sleep(min(PAUSE_S, max(0.0, until - time.monotonic())))


def available() -> bool:
    """True if this machine has SLURM's commands."""
    return shutil.which("squeue") is not None


def slurm_answers() -> bool:
    """True if this machine has SLURM's commands, belongs to a cluster, and its controller answers now."""
    try:
        ask("sinfo", "--noheader", patience_s=0.0)
    except SchedulerError:
        return False
    return True


def this_job() -> str | None:
    """The SLURM job of this process as SLURM writes it: 17, or 17_3 in an array. None outside of a job."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def restarts() -> int:
    """How often SLURM has started this job before; 0 outside of a job."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))


def on_nodes(job: str, patience_s: float = 0.0) -> bool | None:
    """True while a job may have living processes; False if it waits, has ended or is unknown to SLURM; None if SLURM does not answer."""
    try:
        states = ask("squeue", "--noheader", "--array", "--states=all", "--format=%T", f"--jobs={job}", patience_s=patience_s, say=lambda text: None)
    except SchedulerSilent:
        return None
    except SchedulerError as error:
        return None if available() and "nvalid job id" not in str(error) else False
    return any(state in ON_NODES for state in states.split())


def in_queue(job: str) -> bool:
    """True while a job, or a task of an array, waits or runs. Raises SchedulerSilent."""
    try:
        states = ask("squeue", "--noheader", "--array", "--states=all", "--format=%T", f"--jobs={job}")
    except SchedulerSilent:
        raise
    except SchedulerError:
        return False
    return any(state in ON_NODES | WAITING for state in states.split())


def requeue(job: str, without: Iterable[str] = ()) -> bool:
    """True if SLURM queues a running job again, to start it on nodes other than `without`. SLURM then kills its processes."""
    try:
        ask("scontrol", "requeue", job)
    except SchedulerError as error:
        complain(f"job {job} is not queued again: {error}")
        return False
    leave_out(job, without)
    return True


def leave_out(job: str, nodes: Iterable[str]) -> None:
    """Keeps a waiting job, or the waiting tasks of an array, off these nodes alone. Prints the error if SLURM refuses, as for a running job."""
    excluded = ",".join(dict.fromkeys(nodes))
    if not excluded:
        return
    try:
        ask("scontrol", "update", f"JobId={job}", f"ExcNodeList={excluded}")
    except SchedulerError as error:
        complain(f"job {job} may still start on {excluded}: {error}")
