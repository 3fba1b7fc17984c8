"""python -m harness.cancel <grid.yaml | run folder | cell>: ends its jobs, those that run and those that wait, and what no other cell needs.

Checkpoints stay, and the next launch goes on from them. Exit codes: 0 cancelled, 1 something could not be, 2 usage, 3 nothing to cancel.
"""

import argparse
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.monitor.lookup import NameNotFound, find_part, find_run, is_run
from harness.monitor.survey import Survey, survey
from harness.text import counted
from jobs.cluster.claims import is_claimed
from jobs.cluster.slurm import SchedulerError, ask, requeue
from jobs.experiment.index import RunIndexError
from jobs.experiment.run_folder import CANCELLED, LAUNCH_LOCK, RUNS, RunFolder
from jobs.experiment.submissions import Submission

OK, NOT_ALL, USAGE, NOTHING = 0, 1, 2, 3
LAUNCHER_S = 120.0  # that a launch may take to end, or to hand its last array over
AT_ONCE = 500  # jobs named in one call of scancel


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    options = parse(arguments)
    try:
        if is_run(options.what, options.runs):
            return cancel_grid(find_run(options.what, options.runs))
        run, index, part = find_part(options.what, options.runs)
        if part not in index.cells:
            raise NameNotFound(f"{part} is a stage, which several cells may need; name a cell, or the grid")
        return cancel_cell(run, part)
    except (NameNotFound, RunIndexError) as error:
        print(error, file=sys.stderr)
        return USAGE
    except SchedulerError as error:
        print(f"{error}: it is not known what was cancelled; say it again later", file=sys.stderr)
        return NOT_ALL


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m harness.cancel", description=__doc__.splitlines()[0])
    parser.add_argument("what", help="a grid.yaml, a run folder, or a cell's id or its beginning")
    parser.add_argument("--runs", type=Path, default=RUNS, help="where run folders are kept (default: %(default)s)")
    return parser.parse_args(arguments)


def cancel_grid(run: RunFolder) -> int:
    """Ends the launcher and every job of a run folder."""
    launcher, ended = end_launcher(run)
    found = known(run)
    living = [one for one in dict.fromkeys(found.job_of.values()) if (state := found.jobs.get(one.job)) and state.alive]
    lines = [line for line in (launcher, *end_jobs(found, living)) if line]
    if not lines:
        print(f"nothing to cancel: no job of {run.path} runs or waits")
        return NOTHING
    print("\n".join(lines))
    print(f"checkpoints are kept; {found.launch_command} goes on from them")
    return OK if ended and not any(line.startswith("NOT") for line in lines) else NOT_ALL


def cancel_cell(run: RunFolder, cell: str) -> int:
    """Ends what only this cell needs."""
    found = known(run)
    title, path = found.index.cells[cell].title, found.index.cells[cell].stages
    if found.states[cell] in ("done", "failed", "blocked"):
        print(f"nothing to cancel: cell {cell} ({title}) {'is done' if found.states[cell] == 'done' else 'has failed'}")
        return NOTHING
    mark = run.path / CANCELLED / cell
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()  # a job that comes to a stage of this cell alone leaves it out
    left = [stage for stage in path if not found.exported(stage)] or [path[-1]]
    needs = {stage: others(found, run, stage, cell) for stage in left}
    ours = frozenset(stage for stage in left if not needs[stage])
    lines = [f"cell {cell} ({title}) is cancelled"]
    for stage in left:
        if needs[stage]:
            shown = ", ".join(needs[stage][:3]) + (f" and {len(needs[stage]) - 3} more" if len(needs[stage]) > 3 else "")
            lines.append(f"stage {stage} ({found.index.stages[stage].title}) goes on: cells {shown} need it")
    whole, shared = jobs_of(found, ours)
    lines += end_jobs(found, whole)
    lines += [leave_out(found, one, ours) for one in shared]
    print("\n".join(lines))
    print(f"checkpoints are kept; {found.launch_command} runs the cell again")
    return NOT_ALL if any(line.startswith("NOT") for line in lines) else OK


def known(run: RunFolder) -> Survey:
    """The survey of a run folder. Raises SchedulerError where SLURM does not say what runs."""
    found = survey(run)
    if found.silent:
        raise SchedulerError(found.silent)
    return found


def others(found: Survey, run: RunFolder, stage: str, cell: str) -> list[str]:
    """The other cells that still need a stage."""
    gone = run.cancelled_cells()
    waiting = (one for one, entry in found.index.cells.items() if stage in entry.stages and one != cell and one not in gone)
    return [one for one in waiting if found.states[one] not in ("done", "failed", "blocked")]


def jobs_of(found: Survey, ours: frozenset[str]) -> tuple[list[Submission], list[Submission]]:
    """Living jobs that have nothing to do but these stages, and those that have others too."""
    whole, shared = [], []
    for one in dict.fromkeys(found.job_of[stage] for stage in ours if found.alive(stage)):
        left = {stage for stage in one.stages if not found.exported(stage) and stage not in found.dropped} or {one.stages[-1]}
        (whole if left <= ours else shared).append(one)
    return whole, shared


def end_jobs(found: Survey, jobs: Sequence[Submission]) -> list[str]:
    """What was ended, one line a kind."""
    slurm = [one for one in jobs if not one.local]
    ran = [one for one in slurm if found.jobs[one.job].running]
    waited = [one for one in slurm if one not in ran]
    scancel(found, slurm)
    lines = [f"cancelled {count(group)} that {what}" for group, what in ((ran, "ran"), (waited, "waited")) if group]
    for one in jobs:
        if one.local and one.host == socket.gethostname():
            end_process(int(one.job.rpartition(":")[2]))
            lines.append(f"ended the local job of process {one.job.rpartition(':')[2]}")
        elif one.local:
            lines.append(f"NOT ended: the job of process {one.job.rpartition(':')[2]} on {one.host}; cancel there")
    return lines


def scancel(found: Survey, jobs: Sequence[Submission]) -> None:
    """Cancels SLURM jobs, in as few calls as may be: an array of which nothing else lives goes as one."""
    given = {one.job for one in jobs}
    kept = {one.array for one in found.job_of.values() if one.job not in given and (state := found.jobs.get(one.job)) and state.alive}
    ids = list(dict.fromkeys(one.job if one.array in kept else one.array for one in jobs))
    for start in range(0, len(ids), AT_ONCE):
        ask("scancel", *ids[start : start + AT_ONCE])


def count(jobs: Sequence[Submission]) -> str:
    """Jobs by number and name: '3 jobs (17_0, 17_1, 17_4)'."""
    ids = [one.job for one in jobs]
    return f"{counted(len(ids), 'job')} ({', '.join(ids[:6])}{' ...' if len(ids) > 6 else ''})"


def leave_out(found: Survey, one: Submission, ours: Iterable[str]) -> str:
    """What becomes of a job that also has stages of other cells."""
    if found.under_way(one) not in ours or not found.jobs[one.job].running:
        return f"job {one.job} leaves the cell's stages out and goes on with those of other cells"
    if not one.local:
        if requeue(one.job):
            return f"job {one.job} is queued again, for other cells' stages alone"
        return f"NOT ended: job {one.job}, which has other cells' stages too"
    if one.host != socket.gethostname():
        return f"NOT ended: the job of process {one.job.rpartition(':')[2]} on {one.host}; cancel there"
    end_process(int(one.job.rpartition(":")[2]))
    return f"the local job of process {one.job.rpartition(':')[2]} was ended; its launcher starts another for the other cells' stages"


def end_launcher(run: RunFolder) -> tuple[str, bool]:
    """What was done about a launch at work, and whether it has ended. One that submits to SLURM is waited for: nothing it hands over gets lost."""
    lock = run.path / LAUNCH_LOCK
    if not is_claimed(lock):
        return "", True
    who = json.loads(lock.read_text() or "{}")
    if who.get("host") != socket.gethostname():
        return f"NOT ended: the launch by process {who.get('pid')} on {who.get('host')}; cancel there", False
    waited_for = known(run).index.cluster == "slurm"
    if waited_for:
        print(f"process {who['pid']} is submitting this grid; waiting until it has ended ...", file=sys.stderr, flush=True)
    else:
        os.kill(who["pid"], signal.SIGTERM)
    until = time.monotonic() + LAUNCHER_S
    while is_claimed(lock):
        if time.monotonic() > until:
            return f"NOT ended: the launch by process {who['pid']}", False
        time.sleep(0.1)
    return ("" if waited_for else f"stopped the launch by process {who['pid']} and its jobs"), True


def end_process(pid: int) -> None:
    """Kills a local job with all its processes."""
    from jobs.cluster.submitit_jobs import stop_tree

    stop_tree(pid)


if __name__ == "__main__":
    sys.exit(main())
