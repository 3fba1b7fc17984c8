"""The queue of this machine: so many jobs at a time, children after their parents. A job that dies starts again and resumes from its checkpoint."""

import errno
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.monitor.survey import is_over
from jobs.cluster.claims import is_claimed
from jobs.cluster.submitit_jobs import live_ranks, local_slots, stop, submit
from jobs.experiment.ids import CellId, StageId
from jobs.experiment.job import JobSpec
from jobs.experiment.records import Failure
from jobs.experiment.run_folder import RunFolder
from jobs.experiment.specs import ClusterSpec, StageSpec
from jobs.experiment.submissions import local_job, write_submitted
from jobs.recovery.micro_batch import stored_micro_batch
from jobs.recovery.triage import DISK_FULL
from jobs.worker.choice import unended_trials
from jobs.worker.failures import record_failure
from jobs.worker.job import run_job
from jobs.worker.notify import tell
from models.plugins.content import PluginError

if TYPE_CHECKING:
    from submitit import Job

RESTARTS = 2  # of one stage within one launch, when its process died without an error
POLL_S = 0.2
RANK_LOST_S = 10.0  # the time that the ranks of a job may take to end, after the first has ended
START_S = 60.0  # the time that they may take to appear
FULL_BYTES = 64 << 10  # free space below which a disk counts as full


@dataclass(eq=False)
class QueuedJob:
    """A job that waits, or runs in a slot."""

    job: JobSpec
    process: "Job[None] | None" = None  # None: it waits
    log: Path | None = None
    micro_batches: dict[StageId, int | None] = field(default_factory=dict)  # reduced sizes by stage, when it started
    lost_s: float | None = None  # since when one of its ranks has been missed, by time.monotonic(); at first START_S after its start


@dataclass
class LocalQueue:
    """Runs jobs on this machine, `local_slots` at a time. Everything that matters is in the run folder, so a killed queue is simply started again."""

    run: RunFolder
    cluster: ClusterSpec
    waiting: list[QueuedJob]
    submit: "Callable[..., Job[None]]" = submit
    stop: "Callable[[Job[None]], None]" = stop
    live_ranks: "Callable[[Job[None]], int]" = live_ranks
    running: dict[int, QueuedJob] = field(default_factory=dict)  # by slot
    deaths: dict[StageId, int] = field(default_factory=dict)

    @classmethod
    def of(cls, run: RunFolder, jobs: Sequence[JobSpec], cluster: ClusterSpec) -> "LocalQueue":
        """A queue in which nothing has started."""
        return cls(run, cluster, [QueuedJob(job) for job in jobs])

    def drain(self, watch: "Callable[[LocalQueue], None]") -> None:
        """Returns when every stage is done, has failed or is blocked. `watch` is called in every round.

        KeyboardInterrupt, and OSError if the run folder cannot be written, stop the jobs and are raised again.
        """
        try:
            while self.waiting or self.running:
                self.collect()
                self.start()
                watch(self)
                time.sleep(POLL_S)
        except (KeyboardInterrupt, OSError):
            self.cancel()
            raise

    def collect(self) -> None:
        """Takes ended jobs out of their slots. The stages that they left undone wait again."""
        for slot, queued in list(self.running.items()):
            if queued.process is None or not queued.process.done():
                self.stop_if_rank_lost(queued)
                continue
            del self.running[slot]
            job, left = queued.job, self.left(queued.job)
            if left and left[0] is current_stage(self.run, job) and not any(self.run.failure(spec.id) for spec in job.stages):
                self.count_death(queued, left[0].id)
                left = self.left(job)
            if left:
                self.waiting.insert(0, QueuedJob(replace(job, stages=left)))

    def stop_if_rank_lost(self, queued: QueuedJob) -> None:
        """Stops a job that has lost a rank, for which its other ranks would wait."""
        if self.cluster.ranks == 1 or queued.process is None:
            return
        if self.live_ranks(queued.process) == self.cluster.ranks:
            queued.lost_s = None
        elif queued.lost_s is None:  # counted from here on, not from the last look: this process may have stood still meanwhile
            queued.lost_s = time.monotonic()
        elif time.monotonic() - queued.lost_s > RANK_LOST_S:
            self.stop(queued.process)

    def left(self, job: JobSpec) -> tuple[StageSpec, ...]:
        """The stages of a job that still can and must run."""
        cancelled = self.run.cancelled_cells()
        return tuple(spec for spec in job.stages if not ended(self.run, job, spec.id) and not self.blocked(spec.id, job, cancelled))

    def count_death(self, queued: QueuedJob, stage: StageId) -> None:
        """Counts a death of a stage that left neither weights nor an error. After the last death that is allowed, the stage has failed.

        A stage that ran out of memory, and has left a smaller micro-batch for its next attempt, is not counted. Raises OSError if the disk is full.
        """
        if stored_micro_batch(self.run.stage_dir(stage)) != queued.micro_batches.get(stage):
            return
        if queued.log is not None and out_of_space(queued.log):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.run.path))
        self.deaths[stage] = self.deaths.get(stage, 0) + 1
        refused = refused_plugin(queued.log) if queued.log is not None else None
        if self.deaths[stage] <= RESTARTS and refused is None:
            return
        message = f"its process died {self.deaths[stage]} times without an error (killed, out of memory, or a crash): see {queued.log}"
        failure = Failure(kind=PluginError.__name__ if refused else "killed", message=refused or message, stage=stage)
        self.run.write_failure(stage, failure)
        record_failure(self.run, failure, queued.job, self.cluster.ranks)
        tell(self.run, "first_failure", failure=f"{failure.kind}: {failure.message} (stage {stage})")

    def start(self) -> None:
        """Fills free slots with jobs whose parents are done and whose stages no other process works on."""
        for slot in sorted(set(range(local_slots(self.cluster))) - set(self.running)):
            queued = next((queued for queued in self.waiting if self.ready(queued.job)), None)
            if queued is None:
                break
            self.waiting.remove(queued)
            folder, stages = fresh_folder(self.run.jobs_dir), queued.job.stages
            queued.process = self.submit(self.cluster, folder, run_job, queued.job, name=queued.job.grid, slot=slot)
            self.running[slot] = queued  # at once: whatever stops this queue from here on stops the job, too
            write_submitted(folder, {local_job(queued.process.job_id): [spec.id for spec in stages]})
            queued.micro_batches = {spec.id: stored_micro_batch(self.run.stage_dir(spec.id)) for spec in stages}
            queued.log = folder / f"{queued.process.job_id}_0_log.out"
            queued.lost_s = time.monotonic() + START_S
        self.waiting = [queued for queued in self.waiting if self.left(queued.job)]

    def ready(self, job: JobSpec) -> bool:
        """True if all stages that the job starts from are done, and no job of another launch holds one of its stages."""
        own = {spec.id for spec in job.stages}
        before = {stage for spec in job.stages for stage in spec.needed} - own
        claims = (self.run.stage_claim(stage) for stage in own)
        ended = all(not unended_trials(self.run, spec, own) for spec in job.stages)
        return ended and all(self.run.done(stage) for stage in before) and not any(map(is_claimed, claims))

    def blocked(self, stage: StageId, job: JobSpec, cancelled: Collection[CellId] = ()) -> bool:
        """True if a stage comes after one that has failed, or if all its cells are cancelled."""
        paths = [planned.leading_to(stage) for planned in job.cells if stage in planned.stages and planned.cell.id not in cancelled]
        return not paths or any(self.run.failure(before) is not None for path in paths for before in path)

    def cancel(self) -> None:
        """Stops the running jobs. Their checkpoints stay."""
        for queued in self.running.values():
            if queued.process:
                self.stop(queued.process)


def refused_plugin(log: Path) -> str | None:
    """Why a job could not load the copy of a plug-in, by its log: this happens before there is a job that could write a failure. None if it could."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
    except OSError:
        return None
    start = f"{PluginError.__module__}.{PluginError.__name__}: "
    return next((line.removeprefix(start) for line in lines if line.startswith(start)), None)


def out_of_space(log: Path) -> bool:
    """True if a job's log reports a full disk, or if the disk is so full that the log could not."""
    try:
        text = log.read_bytes()[-20_000:].decode(errors="replace")
        return DISK_FULL.search(text) is not None or shutil.disk_usage(log.parent).free < FULL_BYTES
    except OSError:
        return False


def ended(run: RunFolder, job: JobSpec, stage: StageId) -> bool:
    """True if the job has nothing left to do for a stage: see `is_over`."""
    return is_over(run, stage, (planned.cell.id for planned in job.cells if planned.stages[-1] == stage))


def current_stage(run: RunFolder, job: JobSpec) -> StageSpec | None:
    """The stage that a job is at."""
    return next((spec for spec in job.stages if not ended(run, job, spec.id)), None)


def fresh_folder(parent: Path) -> Path:
    """A new numbered folder in `parent`. Each job needs its own: submitit trusts result files of an earlier job with the same process id."""
    parent.mkdir(parents=True, exist_ok=True)
    number = 1 + max((int(path.name) for path in parent.iterdir() if path.name.isdigit()), default=0)
    while True:
        try:
            (parent / str(number)).mkdir()
            return parent / str(number)
        except FileExistsError:
            number += 1


def run_here(run: RunFolder, jobs: Iterable[JobSpec], cluster: ClusterSpec) -> None:
    """Runs jobs one after another in this process, within reach of a debugger."""
    for job in jobs:
        error = submit(cluster, fresh_folder(run.jobs_dir), run_job, job, name=job.grid).exception()
        if error is not None:
            raise error
