"""How a run stands: what is done, failed, blocked or open on disk, and which jobs work on what is open.

This module has the one definition of these words. The first half reads files alone and needs no index, so a first launch uses it too:
`is_done`, `has_failed`, `is_over` for stages, `cell_state` and `cell_states` for cells. `survey` adds the jobs, from what launches wrote down and
one question to SLURM.
"""

import os
import time
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Literal

import msgspec

from harness.monitor.json_fields import read_fields
from jobs.cluster.claims import is_claimed
from jobs.cluster.slurm import PATIENCE_S, SchedulerError, complain
from jobs.cluster.slurm_jobs import JobState, queue_state
from jobs.experiment.files import this_host
from jobs.experiment.ids import CellId, JobId, StageId
from jobs.experiment.index import CellEntry, RunIndex, read_index
from jobs.experiment.run_folder import CELLS, FAILURE, PROGRESS, RECORD, STAGE, STAGES, RunFolder, holds_done_stage
from jobs.experiment.submissions import Submission, submissions
from jobs.experiment.trials import lost_stages

Queue = Callable[[list[JobId]], dict[JobId, JobState]]  # asks SLURM for the state of each job; raises SchedulerError
Files = Mapping[StageId, frozenset[str]]  # the names in the folder of every stage that has one
RecordStatus = Literal["done", "failed"]
DiskState = Literal["done", "failed", "blocked", "open"]
State = Literal["done", "running", "queued", "blocked", "failed", "open", "unknown"]
STATES: tuple[State, ...] = ("done", "running", "queued", "blocked", "failed", "open", "unknown")
STALE_S = 2.0  # SLURM may take this long to answer; after that the disk is read again
HEARTBEAT_S = 120.0  # a stage that wrote progress so recently is alive, wherever its process is


class RecordFields(msgspec.Struct):
    """The part of a record that a survey reads."""

    status: RecordStatus


RECORD_FIELDS = msgspec.json.Decoder(RecordFields)


# Stages, by their files


def is_done(names: Container[str]) -> bool:
    """True when a stage has left its weights and none of its steps has to be trained again. `names`: those in its folder."""
    return holds_done_stage(names.__contains__)


def has_failed(names: Container[str]) -> bool:
    """True when a stage has stopped for good. It may be done too: then the measurement of one of its cells failed."""
    return FAILURE in names


def given_up(names: Container[str]) -> bool:
    """True when a stage has stopped for good and has left no weights."""
    return has_failed(names) and not is_done(names)


def is_over(run: RunFolder, stage: StageId, cells: Iterable[CellId] = ()) -> bool:
    """True when no job has anything left to do for a stage: it has failed, or it is done and each of `cells`, which end in it, has its record."""
    names = frozenset(names_in(run.stage_dir(stage)))
    return has_failed(names) or (is_done(names) and all(run.record_path(cell).exists() for cell in cells))


def failed_stages(files: Files) -> frozenset[StageId]:
    """Stages that have failed."""
    return frozenset(stage for stage, names in files.items() if has_failed(names))


def names_in(folder: Path | str) -> list[str]:
    """The names in a folder; empty where there is no such folder."""
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def stage_files(run: RunFolder, names: Callable[[str], list[str]] = names_in) -> dict[StageId, frozenset[str]]:
    """The names in every stage's folder. names: gives those in a folder."""
    folder = f"{run.path}/{STAGES}"
    return {StageId(stage): frozenset(names(f"{folder}/{stage}")) for stage in names(folder)}


# Cells, by their files


def cell_state(stages: Sequence[StageId], files: Files, record: RecordStatus | None) -> DiskState:
    """The state of a cell with these stages on its path, and a record that ends so, as the files alone say it.

    done      its record has numbers                          failed    its record has none, or its own last stage has failed
    blocked   a stage before its last one has failed          open      the rest
    """
    if record is not None:
        return record
    failed = failed_on(stages, files)
    if failed is None:
        return "open"
    return "failed" if failed == stages[-1] else "blocked"


def cell_states(run: RunFolder, paths: Mapping[CellId, Sequence[StageId]]) -> dict[CellId, DiskState]:
    """The state of every cell as the files alone say it. `paths`: the stages of each."""
    files = stage_files(run)
    return {cell: cell_state(stages, files, record_status(run, cell)) for cell, stages in paths.items()}


def failed_on(stages: Sequence[StageId], files: Files) -> StageId | None:
    """The first stage of a path that has failed, None when no stage has."""
    return next((stage for stage in stages if has_failed(files.get(stage, ()))), None)


def standing(cell: CellEntry, files: Files) -> StageId:
    """The stage at which a cell stands: the first one that has failed, else the first one that is not done, else its last."""
    return failed_on(cell.required, files) or next(iter(open_stages(cell, files)), cell.stages[-1])


def open_stages(cell: CellEntry, files: Files) -> list[StageId]:
    """The stages of a cell that are not done, without those of trials that have failed."""
    lost = lost_stages(cell.trials, lambda stage: given_up(files.get(stage, ())))
    return [stage for stage in cell.stages if stage not in lost and not is_done(files.get(stage, ()))]


def record_status(run: RunFolder, cell: CellId) -> RecordStatus | None:
    """How a cell has ended, None without a record. A torn record counts as failed; `RunFolder.record` says what is wrong with it."""
    path = run.record_path(cell)
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return written_status(path, status.st_size, status.st_mtime_ns)


@cache
def written_status(path: Path, size: int, mtime_ns: int) -> RecordStatus:
    """The status in a record, which a watching status reads once as long as size and time of change stay."""
    try:
        return read_fields(path, RECORD_FIELDS).status
    except (OSError, ValueError):
        return "failed"


def recorded_cells(run: RunFolder) -> set[CellId]:
    """Cells with a record."""
    folder = f"{run.path}/{CELLS}"
    return {CellId(name) for name in names_in(folder) if os.path.exists(f"{folder}/{name}/{RECORD}")}


# Cells with their jobs


@dataclass(frozen=True, kw_only=True)
class Survey:
    """A run folder at one moment.

    done, failed, blocked   as `cell_state` says           running   a job works on it now
    queued    a living job or launch will run it           open      no job has it: the next launch runs it
    unknown   SLURM has its job, and does not answer
    """

    run: RunFolder
    index: RunIndex
    files: Files
    states: Mapping[CellId, State]
    stands_at: Mapping[CellId, StageId]  # see `standing`
    jobs: Mapping[JobId, JobState]  # all that still matter
    job_of: Mapping[StageId, Submission]  # the living job that has a stage; without one the last job that had it
    dropped: frozenset[StageId] = frozenset()  # stages that no job will run: failed, behind a failed one, or of cancelled cells alone
    silent: str = ""  # why SLURM's jobs are unknown
    launching: bool = False  # a launch of this grid is at work now

    @property
    def launch_command(self) -> str:
        """The command that resumes the run."""
        return self.index.launch_command(self.run)

    def done(self, stage: StageId) -> bool:
        """True when a stage is done: see `is_done`."""
        return is_done(self.files.get(stage, ()))

    def alive(self, stage: StageId) -> JobState | None:
        """The living job that has a stage, None when no job has it."""
        state = self.jobs.get(self.job_of[stage].job) if stage in self.job_of else None
        return state if state is not None and state.alive else None

    def fronts(self, cell: CellId) -> list[StageId]:
        """The stages at which a cell stands: one, or of a cell with trials all that are open."""
        entry = self.index.cells[cell]
        return (open_stages(entry, self.files) if len(entry.trials) > 1 else []) or [self.stands_at[cell]]

    def at_work(self, cell: CellId) -> list[StageId]:
        """The stages of a cell that a job works on now."""
        running = [stage for stage in self.fronts(cell) if (job := self.alive(stage)) and job.running]
        return [stage for stage in running if self.done(stage) or self.under_way(self.job_of[stage]) == stage]

    def under_way(self, submission: Submission) -> StageId:
        """The stage that a job is at: the first that it has to run and that is not done, or its last, whose cells are being measured."""
        return next((stage for stage in submission.stages if not self.done(stage) and stage not in self.dropped), submission.stages[-1])


def survey(
    run: RunFolder,
    *,
    index: RunIndex | None = None,
    launching: bool | None = None,
    patience_s: float = PATIENCE_S,
    say: Callable[[str], None] = complain,
    queue: Queue | None = None,
    names: Callable[[str], list[str]] = names_in,
) -> Survey:
    """The state of every cell and job now. Raises RunIndexError where nothing was launched. SLURM's silence is a result, not an error.

    index: of the run folder; None: read from it. launching: whether a launch is at work; None: its lock says so. queue, names: ask SLURM, and list a
    folder; those of `harness.monitor.memory` remember. No queue: SLURM itself, with this patience.
    """
    index, files, submitted, recorded = index or read_index(run), stage_files(run, names), submissions(run), recorded_cells(run)
    asked = time.monotonic()
    ask = queue or partial(queue_state, patience_s=patience_s, say=say)
    jobs, silent = job_states(run, unfinished(submitted, index, files, recorded), files, ask)
    if time.monotonic() > asked + STALE_S:  # SLURM took its time, and jobs may have ended meanwhile
        files, recorded = stage_files(run, names), recorded_cells(run)
    surveyed = Survey(
        run=run,
        index=index,
        files=files,
        states={},
        stands_at={cell: standing(entry, files) for cell, entry in index.cells.items()},
        jobs=jobs,
        job_of=owners(submitted, jobs),
        dropped=dropped(index, files, run.cancelled_cells()),
        silent=silent,
        launching=is_claimed(run.launch_lock) if launching is None else launching,
    )
    return replace(surveyed, states={cell: state(surveyed, cell, cell in recorded) for cell in index.cells})


def state(surveyed: Survey, cell: CellId, recorded: bool) -> State:
    """The state of one cell."""
    stage = surveyed.stands_at[cell]
    record = record_status(surveyed.run, cell) if recorded else None
    on_disk = cell_state(surveyed.index.cells[cell].required, surveyed.files, record)
    if on_disk != "open":
        return on_disk
    if surveyed.silent and stage in surveyed.job_of and not surveyed.job_of[stage].local:
        return "unknown"
    if surveyed.at_work(cell):
        return "running"
    return "queued" if surveyed.launching or any(map(surveyed.alive, surveyed.fronts(cell))) else "open"


def unfinished(submitted: Sequence[Submission], index: RunIndex, files: Files, recorded: Collection[CellId]) -> list[Submission]:
    """Jobs that may have work left: a stage that is neither done nor failed, or a cell that waits to be measured."""
    over = {stage for stage, names in files.items() if is_done(names) or has_failed(names)}
    over -= {entry.stages[-1] for cell, entry in index.cells.items() if cell not in recorded}
    return [submission for submission in submitted if not over.issuperset(submission.stages)]


def dropped(index: RunIndex, files: Files, cancelled: Collection[CellId]) -> frozenset[StageId]:
    """Stages that no job will run: every cell that needs them is cancelled, or has failed at or before them."""
    needed: set[StageId] = set()
    for cell, entry in index.cells.items():
        if cell not in cancelled:
            failed = failed_on(entry.required, files)
            lost = lost_stages(entry.trials, lambda stage: given_up(files.get(stage, ())))
            needed.update(set(entry.stages) - lost if failed is None else entry.required[: entry.required.index(failed)])
    return frozenset(index.stages) - needed


def job_states(run: RunFolder, submitted: Sequence[Submission], files: Files, queue: Queue) -> tuple[dict[JobId, JobState], str]:
    """The state of each job, and why SLURM's are missing where it does not answer."""
    jobs = {submission.job: process_state(run, submission, files) for submission in submitted if submission.local}
    try:
        return jobs | queue([submission.job for submission in submitted if not submission.local]), ""
    except SchedulerError as error:
        return jobs, str(error)


def process_state(run: RunFolder, submission: Submission, files: Files) -> JobState:
    """RUNNING or ENDED. A process of this machine is looked up; one of another machine is alive while its stages write progress."""
    job = submission.job
    if job.host == this_host():
        lives = works_for(job.number, submission.folder)
    else:
        lives = any(heard_s(run, stage) < HEARTBEAT_S for stage in submission.stages if not is_done(files.get(stage, ())))
    return JobState(job=job, state="RUNNING" if lives else "ENDED", nodes=job.host or "")


def works_for(pid: int, folder: Path) -> bool:
    """True when a process of this machine is the local job whose folder this is, and not a later process with the same number."""
    try:
        return os.fsencode(folder.resolve()) in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def heard_s(run: RunFolder, stage: StageId) -> float:
    """Seconds since a stage last wrote its progress, or started."""
    for name in (PROGRESS, STAGE):
        try:
            return time.time() - (run.stage_dir(stage) / name).stat().st_mtime
        except OSError:
            continue
    return float("inf")


def owners(submitted: Sequence[Submission], jobs: Mapping[JobId, JobState]) -> dict[StageId, Submission]:
    """The last job of each stage; a living job before all others."""
    by_stage: dict[StageId, Submission] = {}
    for submission in sorted(submitted, key=lambda each: each.job in jobs and jobs[each.job].alive):  # stable: later launches stay behind
        by_stage.update(dict.fromkeys(submission.stages, submission))
    return by_stage
