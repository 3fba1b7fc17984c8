"""`notify:` at work: the command that a launch wants to be run at its end, or when a stage has failed, is run once for each of these events.

notify.json                 the command of the latest launch, and the number by which its events are told from those of other launches
notified/<launch>-<event>   claimed by the process that runs the command: made by one process alone, also over NFS. Then what the command prints

A launch on this machine tells of its end itself. In SLURM no process of a launch stays alive. There a job that has just ended tells, if nothing is
left to run; and a small job that waits for all others tells if they ended otherwise, killed or cancelled. Whoever comes second changes nothing.
A command that fails, or takes too long, is ended and reported in a line; it never harms a run.
"""

import json
import os
import secrets
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import msgspec

from jobs.cluster.containers import called_outside
from jobs.experiment.files import parsed, write_json
from jobs.experiment.index import RunIndexError, read_index
from jobs.experiment.run_folder import NOTIFIED, NOTIFY, RunFolder
from jobs.experiment.specs import NotifySpec

Event = Literal["end", "first_failure"]


@dataclass(frozen=True, kw_only=True)
class Notice:
    """What the latest launch wants to be run."""

    launch: str  # its number
    folder: str  # in which it was launched, and in which the command runs
    command: str
    on: tuple[Event, ...]
    timeout_s: float


@dataclass(frozen=True, kw_only=True)
class EndJob:
    """What the job that waits for all others is given."""

    run: str
    launch: str


def save_notice(run: RunFolder, spec: NotifySpec | None) -> str | None:
    """The number of this launch, whose command is written down for whoever runs it; None if it wants none."""
    if spec is None:
        (run.path / NOTIFY).unlink(missing_ok=True)
        return None
    notice = Notice(launch=secrets.token_hex(4), folder=os.getcwd(), command=spec.command, on=spec.on, timeout_s=spec.timeout_s)
    write_json(run.path / NOTIFY, asdict(notice))
    return notice.launch


def read_notice(run: RunFolder) -> Notice | None:
    """What the latest launch wants to be run; None if it wants nothing. Raises OSError, and ValueError for a damaged file."""
    try:
        return msgspec.convert(parsed((run.path / NOTIFY).read_bytes()), Notice)
    except FileNotFoundError:
        return None
    except msgspec.ValidationError as error:
        raise ValueError(f"{run.path / NOTIFY} is damaged: {error}") from error


def tell(run: RunFolder, event: Event, *, failure: str = "", launch: str | None = None) -> None:
    """Runs the command for an event, unless no launch wants it, or it was run already. Nothing is raised: what goes wrong is printed.

    failure: what has failed. launch: the number of the launch that tells; the event of a launch that another one has followed is none.
    """
    try:
        notice = read_notice(run)
        if notice is None or event not in notice.on or launch not in (None, notice.launch):
            return
        with claimed_once(run, notice, event) as output:
            said = run_command(run, notice, event, failure, output)
        print(f"notify: {event}: {said}", flush=True)
    except FileExistsError:
        return
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        print(f"notify: {event}: not told: {error}", flush=True)


def claimed_once(run: RunFolder, notice: Notice, event: Event) -> BinaryIO:
    """The file for the command's output, made by the first process that asks for it. Raises FileExistsError for all others."""
    path = run.path / NOTIFIED / f"{notice.launch}-{event}"
    path.parent.mkdir(exist_ok=True)
    return path.open("xb")


def run_command(run: RunFolder, notice: Notice, event: Event, failure: str, output: BinaryIO) -> str:
    """How the command ended. When it takes too long, it is killed with all that it started."""
    status = status_of(run, notice.timeout_s)
    given = json.dumps({"event": event, "failure": failure, "run": str(run.path.resolve()), "status": status})
    folder = notice.folder if Path(notice.folder).is_dir() else None
    facts = variables(run, event, failure, status)
    process = subprocess.Popen(
        called_outside(["/bin/sh", "-c", notice.command], facts, notice.folder, notice.timeout_s),
        cwd=folder,
        env={**os.environ, **facts},
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        process.communicate(given.encode(), timeout=notice.timeout_s)
    except subprocess.TimeoutExpired:
        end_group(process)
        return f"the command was ended after {notice.timeout_s:g} s; its output is in {output.name}"
    return "done" if process.returncode == 0 else f"the command ended with {process.returncode}; its output is in {output.name}"


def end_group(process: "subprocess.Popen[bytes]") -> None:
    """Kills a command with all that it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    with suppress(OSError):  # what it has not read
        process.stdin.close()  # type: ignore[union-attr]


def status_of(run: RunFolder, limit_s: float) -> dict[str, Any] | None:
    """What `python -m harness.status --json` says of the run, in a process of its own, as jobs do not import the harness; None if it says nothing."""
    try:
        done = subprocess.run([sys.executable, "-m", "harness.status", str(run.path), "--json"], capture_output=True, timeout=limit_s, check=False)
        return dict(json.loads(done.stdout))
    except (OSError, ValueError, TypeError, subprocess.SubprocessError):
        return None


def variables(run: RunFolder, event: Event, failure: str, status: dict[str, Any] | None) -> dict[str, str]:
    """The variables that tell the command what has happened. Those of counts are empty where the status is not known."""
    cells: dict[str, int] = status["cells"] if status else {}
    counts = {
        "CELLS": sum(cells.values()),
        "DONE": cells.get("done", 0),
        "FAILED": cells.get("failed", 0) + cells.get("blocked", 0),
    }
    given = {"EVENT": event, "RUN": str(run.path.resolve()), "GRID": run.path.name, "FAILURE": failure.replace("\0", "")}
    return {f"VSSM_BENCH_{name}": str(value) for name, value in (given | {name: count if cells else "" for name, count in counts.items()}).items()}


def tell_end_if_over(run: RunFolder) -> None:
    """Tells of the end if nothing is left to run: every cell has its record, or has failed on its way, or was cancelled."""
    try:
        wanted = (run.path / NOTIFY).exists() and is_over(run)
    except (OSError, RunIndexError) as error:
        print(f"notify: end: not told: {error}", flush=True)
        return
    if wanted:
        tell(run, "end")


def is_over(run: RunFolder) -> bool:
    """True if no cell of the latest launch is left to run. A trial that has failed ends no tuned cell. Raises RunIndexError."""
    cancelled = run.cancelled_cells()
    failed: dict[str, bool] = {}
    for cell, entry in read_index(run).cells.items():
        if run.record_path(cell).exists() or cell in cancelled:
            continue
        for stage in entry.required:
            if stage not in failed:
                failed[stage] = run.failure_path(stage).exists()
        if not any(failed[stage] for stage in entry.required):
            return False
    return True


def tell_end(job: EndJob) -> None:
    """The job that waits for all others of a launch: it tells of the end, however they ended, if no later launch has followed."""
    tell(RunFolder(Path(job.run)), "end", launch=job.launch)
