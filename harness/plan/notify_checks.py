"""Commands of `notify` that would tell nobody."""

import re
import shlex
import subprocess

from jobs.experiment.specs import ClusterSpec

ASSIGNED = re.compile(r"\w+=.*", re.S)
PLAIN = re.compile(r"[\w./+~-]+")  # a word that the shell takes as it is, or a path from the home folder


def notify_problems(cluster: ClusterSpec) -> list[str]:
    """What is wrong with the command: no shell can read it, or this machine, if it runs the jobs, has no such program."""
    if cluster.notify is None:
        return []
    command = cluster.notify.command
    read = subprocess.run(["/bin/sh", "-n", "-c", command], capture_output=True, text=True, errors="replace", check=False)
    if read.returncode:
        return [f"notify.command: the shell cannot read it: {read.stderr.strip()}"]
    word = program(command)
    if cluster.kind == "slurm" or word is None:
        return []
    known = subprocess.run(["/bin/sh", "-c", f"command -v {word}"], capture_output=True, check=False).returncode == 0
    return [] if known else [f"notify.command: this machine has no program '{word}': install it, or give its whole path"]


def program(command: str) -> str | None:
    """The program that a command runs first, None where the shell has more to say about it."""
    try:
        words = shlex.split(command, comments=True)
    except ValueError:
        return None
    word = next((word for word in words if not ASSIGNED.fullmatch(word)), "")
    return word if PLAIN.fullmatch(word) and re.search(rf"(^|\s){re.escape(word)}(\s|$)", command) else None
