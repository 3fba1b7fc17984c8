"""python -m harness.cancel <grid.yaml | run folder | cell>: ends its jobs, running and waiting, that no other cell needs.

Checkpoints stay, and the next launch resumes from them.
Exit codes: 0: cancelled; 1: something was not cancelled; 2: usage; 3: nothing to cancel.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.monitor.lookup import NameNotFound, find_id, find_run, is_run
from harness.monitor.survey import Survey, survey
from harness.text import counted, shortened
from jobs.cluster.claims import holder, is_claimed
from jobs.cluster.slurm import SchedulerError, ask, requeue
from jobs.experiment.files import this_host
from jobs.experiment.ids import CellId, JobId, StageId
from jobs.experiment.index import RunIndexError
from jobs.experiment.output import replace_unencodable, tells_lost_output
from jobs.experiment.run_folder import RUNS, RunFolder
from jobs.experiment.submissions import Submission

OK, NOT_ALL, USAGE, NOTHING = 0, 1, 2, 3
LAUNCHER_S = 120.0  # a launch may take this long to end, or to submit its last array
AT_ONCE = 500  # jobs named in one call of scancel


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of some jobs, or of a launch, in a line for people."""

    text: str
    ended: bool = True  # as asked; False: something still runs


@tells_lost_output(NOT_ALL)
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    replace_unencodable()
    options = parse(arguments)
    try:
        if is_run(options.target, options.runs):
            return cancel_grid(find_run(options.target, options.runs))
        match = find_id(options.target, options.runs)
        if match.cell is None:
            raise NameNotFound(f"{match.stage} is a stage, and several cells may need it; name a cell or the grid")
        return cancel_cell(match.run, match.cell)
    except (NameNotFound, RunIndexError) as error:
        print(error, file=sys.stderr)
        return USAGE
    except SchedulerError as error:
        print(f"{error}: cancellation state unknown; rerun this command later", file=sys.stderr)
        return NOT_ALL


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m harness.cancel", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("target", help="a grid.yaml, a run folder, or the id of a cell or its beginning")
    parser.add_argument("--runs", type=Path, default=RUNS, help="the folder of all run folders (default: %(default)s)")
    return parser.parse_args(arguments)


def cancel_grid(run: RunFolder) -> int:
    """Ends the launch and every job of a run folder; returns the exit code."""
    launch = end_launch(run)
    surveyed = answered_survey(run)
    living = [submission for submission in dict.fromkeys(surveyed.job_of.values()) if lives(surveyed, submission.job)]
    outcomes = [*([launch] if launch else []), *end_jobs(surveyed, living)]
    if not outcomes:
        print(f"nothing to cancel: no job of {run.path} runs or waits")
        return NOTHING
    return report(outcomes, f"checkpoints are kept; resume with: {surveyed.launch_command}")


def cancel_cell(run: RunFolder, cell: CellId) -> int:
    """Ends the jobs that only this cell needs; returns the exit code."""
    surveyed = answered_survey(run)
    entry, state = surveyed.index.cells[cell], surveyed.states[cell]
    if state in ("done", "failed", "blocked"):
        print(f"nothing to cancel: cell {cell} ({entry.title}) {'is done' if state == 'done' else 'has failed'}")
        return NOTHING
    run.cancel(cell)
    left = [stage for stage in entry.stages if not surveyed.done(stage)] or [entry.stages[-1]]
    users = {stage: other_users(surveyed, stage, cell) for stage in left}
    own = frozenset(stage for stage in left if not users[stage])
    outcomes = [Outcome(text=f"cell {cell} ({entry.title}) is cancelled")]
    for stage in left:
        if users[stage]:
            title = surveyed.index.stages[stage].title
            outcomes.append(Outcome(text=f"stage {stage} ({title}) goes on: cells {shortened(users[stage], 3)} need it"))
    whole, shared = jobs_of(surveyed, own)
    outcomes += end_jobs(surveyed, whole)
    outcomes += [leave_stages_out(surveyed, submission, own) for submission in shared]
    return report(outcomes, f"checkpoints are kept; run the cell again with: {surveyed.launch_command}")


def report(outcomes: Sequence[Outcome], advice: str) -> int:
    """Prints the outcomes and what to do next; returns the exit code."""
    print("\n".join(outcome.text for outcome in outcomes))
    print(advice)
    return OK if all(outcome.ended for outcome in outcomes) else NOT_ALL


def answered_survey(run: RunFolder) -> Survey:
    """The survey of a run folder. Raises SchedulerError where SLURM does not answer."""
    surveyed = survey(run)
    if surveyed.silent:
        raise SchedulerError(surveyed.silent)
    return surveyed


def lives(surveyed: Survey, job: JobId) -> bool:
    """True while a job runs or waits."""
    state = surveyed.jobs.get(job)
    return state is not None and state.alive


def other_users(surveyed: Survey, stage: StageId, cell: CellId) -> list[CellId]:
    """The cells, apart from `cell`, that still need a stage."""
    cancelled = surveyed.run.cancelled_cells()
    users = (other for other, entry in surveyed.index.cells.items() if stage in entry.stages and other != cell and other not in cancelled)
    return [user for user in users if surveyed.states[user] not in ("done", "failed", "blocked")]


def jobs_of(surveyed: Survey, own: frozenset[StageId]) -> tuple[list[Submission], list[Submission]]:
    """Living jobs that have nothing left to do but these stages, and those that have others too."""
    whole: list[Submission] = []
    shared: list[Submission] = []
    for submission in dict.fromkeys(surveyed.job_of[stage] for stage in own if surveyed.alive(stage)):
        todo = {stage for stage in submission.stages if not surveyed.done(stage) and stage not in surveyed.dropped} or {submission.stages[-1]}
        (whole if todo <= own else shared).append(submission)
    return whole, shared


def end_jobs(surveyed: Survey, submissions: Sequence[Submission]) -> list[Outcome]:
    """Ends jobs: one outcome for all running jobs of SLURM's, one for all waiting ones, one for each local job."""
    jobs = [submission.job for submission in submissions if not submission.local]
    running = [job for job in jobs if surveyed.jobs[job].running]
    waiting = [job for job in jobs if not surveyed.jobs[job].running]
    scancel(surveyed, jobs)
    outcomes = [Outcome(text=f"cancelled {listed(group)} that {did}") for group, did in ((running, "ran"), (waiting, "waited")) if group]
    return outcomes + [end_local_job(submission.job) for submission in submissions if submission.local]


def end_local_job(job: JobId) -> Outcome:
    """Ends a process of this machine with all its children; one of another machine stays."""
    if job.host != this_host():
        return Outcome(text=f"NOT ended: process {job.number} on {job.host}; run this command there", ended=False)
    end_process(job.number)
    return Outcome(text=f"ended the local job of process {job.number}")


def scancel(surveyed: Survey, jobs: Sequence[JobId]) -> None:
    """Cancels SLURM jobs, in as few calls as possible: an array of which no other job lives is named as a whole."""
    others = {submission.job for submission in surveyed.job_of.values()} - set(jobs)
    kept = {job.array for job in others if lives(surveyed, job)}
    names = list(dict.fromkeys(str(job if job.array in kept else job.array) for job in jobs))
    for start in range(0, len(names), AT_ONCE):
        ask("scancel", *names[start : start + AT_ONCE])


def listed(jobs: Sequence[JobId]) -> str:
    """Jobs by number and id: '3 jobs (17_0, 17_1, 17_4)'."""
    return f"{counted(len(jobs), 'job')} ({shortened(jobs, 6)})"


def leave_stages_out(surveyed: Survey, submission: Submission, own: Collection[StageId]) -> Outcome:
    """Keeps a job, which has stages of other cells too, from a cell's own stages: where it is at one of them, it has to start again."""
    job = submission.job
    if surveyed.under_way(submission) not in own or not surveyed.jobs[job].running:
        return Outcome(text=f"job {job} will skip the cell's stages and run those of other cells")
    if submission.local:
        outcome = end_local_job(job)
        return Outcome(text=f"{outcome.text}; its launch starts another job for the other cells' stages") if outcome.ended else outcome
    if requeue(str(job)):
        return Outcome(text=f"job {job} is queued again, for the stages of other cells")
    return Outcome(text=f"NOT ended: job {job}, which also has stages of other cells", ended=False)


def end_launch(run: RunFolder) -> Outcome | None:
    """Ends the launch at work, None without one. A launch that submits to SLURM is waited for, so that no job of its is missed."""
    lock = run.launch_lock
    if not is_claimed(lock):
        return None
    launcher = holder(lock)
    if launcher.host != this_host():
        return Outcome(text=f"NOT ended: the launch by {launcher}; run this command there", ended=False)
    pid = launcher.pid
    submits = answered_survey(run).index.cluster == "slurm"
    if submits:
        print(f"process {pid} is submitting this grid; waiting until it has ended ...", file=sys.stderr, flush=True)
    else:
        os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + LAUNCHER_S
    while is_claimed(lock):
        if time.monotonic() > until:
            return Outcome(text=f"NOT ended: the launch by process {pid}", ended=False)
        time.sleep(0.1)
    return None if submits else Outcome(text=f"stopped the launch by process {pid} and its jobs")


def end_process(pid: int) -> None:
    """Kills a local job with all its processes."""
    from jobs.cluster.submitit_jobs import stop_tree

    stop_tree(pid)


if __name__ == "__main__":
    sys.exit(main())
