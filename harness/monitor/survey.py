"""The state of every cell of a run folder, from what stages left on disk, what launches wrote down, and one look at the scheduler."""

import os
import socket
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from jobs.cluster.claims import is_claimed
from jobs.cluster.slurm import PATIENCE_S, SchedulerError, complain
from jobs.cluster.slurm_jobs import JobState, queue_state
from jobs.experiment.index import RunIndex, read_index
from jobs.experiment.run_folder import EXPORT, FAILURE, LAUNCH_LOCK, PROGRESS, REPLAY_TODO, STAGE, RunFolder
from jobs.experiment.submissions import Submission, submissions

State = Literal["done", "running", "queued", "blocked", "failed", "open", "unknown"]
STATES: tuple[State, ...] = ("done", "running", "queued", "blocked", "failed", "open", "unknown")
STALE_S = 2.0  # that SLURM may take to answer before the disk is looked at again
HEARTBEAT_S = 120.0  # a stage that was heard of so recently lives, wherever its process is


@dataclass(frozen=True, kw_only=True)
class Survey:
    """A run folder at one moment.

    done      has its record                         queued    a job or a launch that lives will come to it
    running   a job works on it now                  failed    its own failure is final
    blocked   a stage that it needs has failed       open      nobody works on it: the next launch does
    unknown   SLURM has its job, and does not answer
    """

    run: RunFolder
    index: RunIndex
    files: Mapping[str, frozenset[str]]  # names in the folder of every stage that has one
    states: Mapping[str, State]  # by cell
    stands_at: Mapping[str, str]  # cell -> the stage that failed, or the first one that is not done
    jobs: Mapping[str, JobState]  # by name, of all jobs that still matter
    job_of: Mapping[str, Submission]  # stage -> the job that has it; the last one that had it where none lives
    dropped: frozenset[str] = frozenset()  # stages that no job will run: failed, behind a failed one, or of cancelled cells alone
    silent: str = ""  # why SLURM's jobs are unknown
    launching: bool = False  # a launch of this grid is at work now

    @property
    def launch_command(self) -> str:
        """The command that goes on with the run."""
        return self.index.launch_command(self.run)

    def exported(self, stage: str) -> bool:
        """True when a stage has left its weights, and nobody asks it for those of another step."""
        return left_weights(self.files.get(stage, frozenset()))

    def alive(self, stage: str) -> JobState | None:
        """The living job that has a stage; None where none has."""
        state = self.jobs.get(self.job_of[stage].job) if stage in self.job_of else None
        return state if state is not None and state.alive else None

    def under_way(self, one: Submission) -> str:
        """The stage that a job is at: the first that it has to run and that has no weights, or its last, whose cells are being measured."""
        return next((stage for stage in one.stages if not self.exported(stage) and stage not in self.dropped), one.stages[-1])


def survey(run: RunFolder, *, launching: bool | None = None, patience_s: float = PATIENCE_S, say: Callable[[str], None] = complain) -> Survey:
    """What a run folder holds now. Raises RunIndexError where nothing was launched. SLURM's silence is told, not raised.

    launching: whether a launch is at work; None: its lock says so.
    """
    index, files, submitted, recorded = read_index(run), listings(run), submissions(run), recorded_cells(run)
    asked = time.monotonic()
    jobs, silent = look(run, unfinished(submitted, index, files, recorded), files, patience_s, say)
    if time.monotonic() > asked + STALE_S:  # SLURM was waited for: what jobs have ended with meanwhile is on disk
        files, recorded = listings(run), recorded_cells(run)
    found = Survey(
        run=run,
        index=index,
        files=files,
        states={},
        stands_at={},
        jobs=jobs,
        job_of=owners(submitted, jobs),
        dropped=dropped(index, files, run.cancelled_cells()),
        silent=silent,
        launching=is_claimed(run.path / LAUNCH_LOCK) if launching is None else launching,
    )
    places = {cell: place(found, entry.stages) for cell, entry in index.cells.items()}
    states = {cell: state(found, run, cell, entry.stages, places[cell], cell in recorded) for cell, entry in index.cells.items()}
    return replace(found, states=states, stands_at=places)


def recorded_cells(run: RunFolder) -> set[str]:
    """Cells with a record."""
    cells = f"{run.path}/cells"
    return {name for name in names(cells) if os.path.exists(f"{cells}/{name}/record.json")}


def names(folder: Path | str) -> list[str]:
    """What a folder holds; nothing where there is none."""
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def listings(run: RunFolder) -> dict[str, frozenset[str]]:
    """The names in every stage's folder."""
    folder = f"{run.path}/stages"
    return {stage: frozenset(names(f"{folder}/{stage}")) for stage in names(folder)}


def left_weights(names: frozenset[str]) -> bool:
    """True for the folder of a finished stage."""
    return EXPORT in names and REPLAY_TODO not in names


def failed_stages(files: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """Stages that have left a failure."""
    return frozenset(stage for stage, names in files.items() if FAILURE in names)


def unfinished(submitted: Sequence[Submission], index: RunIndex, files: Mapping[str, frozenset[str]], recorded: Collection[str]) -> list[Submission]:
    """Jobs that may still be at something: a stage without weights or failure, or a cell that waits to be measured."""
    ended = failed_stages(files).union(stage for stage, names in files.items() if left_weights(names))
    ended -= {entry.stages[-1] for cell, entry in index.cells.items() if cell not in recorded}
    return [one for one in submitted if not ended.issuperset(one.stages)]


def dropped(index: RunIndex, files: Mapping[str, frozenset[str]], cancelled: Collection[str]) -> frozenset[str]:
    """Stages that no job will run: every cell that needs them is cancelled, or has failed at or before them."""
    over = failed_stages(files)
    needed: set[str] = set()
    for cell, entry in index.cells.items():
        if cell not in cancelled:
            path = entry.stages
            needed.update(path if over.isdisjoint(path) else path[: next(place for place, stage in enumerate(path) if stage in over)])
    return frozenset(index.stages) - needed


def look(
    run: RunFolder, submitted: Sequence[Submission], files: Mapping[str, frozenset[str]], patience_s: float, say: Callable[[str], None]
) -> tuple[dict[str, JobState], str]:
    """The state of jobs by name, and why SLURM's are missing where it does not say."""
    jobs = {one.job: process_state(run, one, files) for one in submitted if one.local}
    try:
        return jobs | queue_state([one.job for one in submitted if not one.local], patience_s=patience_s, say=say), ""
    except SchedulerError as error:
        return jobs, str(error)


def process_state(run: RunFolder, one: Submission, files: Mapping[str, frozenset[str]]) -> JobState:
    """RUNNING or ENDED. A process of this machine is looked up; one of another machine lives while its stages are heard of."""
    if one.host == socket.gethostname():
        lives = works_for(int(one.job.rpartition(":")[2]), one.folder)
    else:
        lives = any(heard_s(run, stage) < HEARTBEAT_S for stage in one.stages if not left_weights(files.get(stage, frozenset())))
    return JobState(job=one.job, state="RUNNING" if lives else "ENDED", nodes=one.host)


def works_for(pid: int, folder: Path) -> bool:
    """True when a process of this machine is the local job whose folder this is, and not a later one with the same number."""
    try:
        return os.fsencode(folder.resolve()) in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def heard_s(run: RunFolder, stage: str) -> float:
    """Seconds since a stage was last heard of."""
    for name in (PROGRESS, STAGE):
        try:
            return time.time() - (run.stage_dir(stage) / name).stat().st_mtime
        except OSError:
            continue
    return float("inf")


def owners(submitted: Sequence[Submission], jobs: Mapping[str, JobState]) -> dict[str, Submission]:
    """For each stage its last job; a living one before all others."""
    found: dict[str, Submission] = {}
    for one in sorted(submitted, key=lambda one: one.job in jobs and jobs[one.job].alive):  # stable: living ones come last, each kind in its order
        found.update(dict.fromkeys(one.stages, one))
    return found


def place(found: Survey, path: Sequence[str]) -> str:
    """Where a cell stands on its path."""
    failed = next((stage for stage in path if FAILURE in found.files.get(stage, ())), None)
    return failed or next((stage for stage in path if not found.exported(stage)), path[-1])


def state(found: Survey, run: RunFolder, cell: str, path: Sequence[str], stage: str, recorded: bool) -> State:
    """The state of one cell that stands at `stage`."""
    failed = FAILURE in found.files.get(stage, ())
    if recorded and (not failed or record_is_done(run, cell)):
        return "done"
    if failed:
        return "failed" if recorded or stage == path[-1] else "blocked"
    if found.silent and stage in found.job_of and not found.job_of[stage].local:
        return "unknown"
    job = found.alive(stage)
    if job is None:
        return "queued" if found.launching else "open"
    return "running" if job.running and (found.exported(stage) or found.under_way(found.job_of[stage]) == stage) else "queued"


def record_is_done(run: RunFolder, cell: str) -> bool:
    """True when a record holds numbers; asked of cells that share a stage with one that failed, all others are told by their files."""
    return b'"status": "done"' in run.record_path(cell).read_bytes()
