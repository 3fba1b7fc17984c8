"""The queue that submitit's local executor lacks: so many jobs at a time, children after their parents, a killed job goes on from its checkpoint."""

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
from jobs.cluster.submitit_jobs import living_ranks, local_slots, stop, submit
from jobs.experiment.ids import CellId, StageId
from jobs.experiment.job import JobSpec
from jobs.experiment.records import Failure
from jobs.experiment.run_folder import CLAIMS, JOBS, RunFolder
from jobs.experiment.specs import ClusterSpec, StageSpec
from jobs.experiment.submissions import local_job, write_submitted
from jobs.recovery.micro_batch import smaller
from jobs.recovery.triage import DISK_FULL
from jobs.worker.failures import record_failure
from jobs.worker.job import run_job

if TYPE_CHECKING:
    from submitit import Job

RESTARTS = 2  # of one stage within one launch, when its process died without a word
POLL_S = 0.2
CRIPPLED_S = 10.0  # that ranks may end apart; START_S: that they may take to appear
START_S = 60.0
FULL_BYTES = 64 << 10  # free space below which a disk counts as full


@dataclass(eq=False)
class Entry:
    """One order on its way: waiting, running in a slot, or over."""

    order: JobSpec
    job: "Job | None" = None
    log: Path | None = None
    micro: dict[str, int | None] = field(default_factory=dict)  # at its start: smaller micro-batches, by stage
    whole_s: float = 0.0  # when all its ranks were last seen alive; until then START_S after its start


@dataclass
class LocalQueue:
    """Runs orders as local jobs, `local_slots` at a time. All state that matters is in the run folder: a killed queue is simply started again."""

    run: RunFolder
    cluster: ClusterSpec
    waiting: list[Entry]
    submit: "Callable[..., Job]" = submit
    stop: "Callable[[Job], None]" = stop
    living_ranks: "Callable[[Job], int]" = living_ranks
    running: dict[int, Entry] = field(default_factory=dict)  # by slot
    deaths: dict[str, int] = field(default_factory=dict)  # by stage

    @classmethod
    def of(cls, run: RunFolder, orders: Sequence[JobSpec], cluster: ClusterSpec) -> "LocalQueue":
        """A queue with nothing started."""
        return cls(run, cluster, [Entry(order) for order in orders])

    def drain(self, watch: "Callable[[LocalQueue], None]") -> None:
        """Returns when every stage is done, failed or blocked. `watch` is called at every look.

        KeyboardInterrupt, and OSError where the run folder cannot be written, stop the jobs and go on up.
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
        """Takes ended jobs out of their slots; what they left undone waits again."""
        for slot, entry in list(self.running.items()):
            if entry.job is None or not entry.job.done():
                self.end_crippled(entry)
                continue
            del self.running[slot]
            left = self.left(entry.order)
            if left and left[0].id == self.under_way(entry.order) and not any(self.run.failure(spec.id) for spec in entry.order.stages):
                self.died(entry, left[0].id)
                left = self.left(entry.order)
            if left:
                self.waiting.insert(0, Entry(replace(entry.order, stages=left)))

    def end_crippled(self, entry: Entry) -> None:
        """Ends a job that has lost a rank and whose others wait for it."""
        if self.cluster.ranks == 1 or entry.job is None:
            return
        if self.living_ranks(entry.job) == self.cluster.ranks:
            entry.whole_s = time.monotonic()
        elif time.monotonic() - entry.whole_s > CRIPPLED_S:
            self.stop(entry.job)

    def under_way(self, order: JobSpec) -> str | None:
        """The stage that an order's job is at."""
        return next((spec.id for spec in order.stages if not complete(self.run, order, spec.id)), None)

    def left(self, order: JobSpec) -> tuple[StageSpec, ...]:
        """The stages of an order that still can and must run."""
        gone = self.run.cancelled_cells()
        return tuple(spec for spec in order.stages if not complete(self.run, order, spec.id) and not self.blocked(spec.id, order, gone))

    def died(self, entry: Entry, stage: str) -> None:
        """Counts a death of a stage that left neither weights nor an error; the last one allowed becomes its failure. OSError when the disk is full.

        One that ran out of memory and has left a smaller micro-batch for the next attempt is none.
        """
        if smaller(self.run.stage_dir(stage)) != entry.micro.get(stage):
            return
        if entry.log is not None and out_of_space(entry.log):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.run.path))
        self.deaths[stage] = self.deaths.get(stage, 0) + 1
        if self.deaths[stage] <= RESTARTS:
            return
        message = f"its process died {self.deaths[stage]} times without an error (killed, out of memory, or a crash): see {entry.log}"
        failure = Failure(kind="killed", message=message, stage=stage)
        self.run.write_failure(stage, failure)
        record_failure(self.run, failure, entry.order, self.cluster.ranks)

    def start(self) -> None:
        """Fills free slots with orders whose parents are there and whose stages nobody else works on."""
        for slot in sorted(set(range(local_slots(self.cluster))) - set(self.running)):
            entry = next((entry for entry in self.waiting if self.ready(entry.order)), None)
            if entry is None:
                break
            self.waiting.remove(entry)
            folder = fresh_folder(self.run.path / JOBS)
            entry.job = self.submit(self.cluster, folder, run_job, entry.order, name=entry.order.grid, slot=slot)
            write_submitted(folder, {local_job(entry.job.job_id): [StageId(spec.id) for spec in entry.order.stages]})
            entry.micro = {spec.id: smaller(self.run.stage_dir(spec.id)) for spec in entry.order.stages}
            entry.log = folder / f"{entry.job.job_id}_0_log.out"
            entry.whole_s = time.monotonic() + START_S
            self.running[slot] = entry
        self.waiting = [entry for entry in self.waiting if self.left(entry.order)]

    def ready(self, order: JobSpec) -> bool:
        """True when an order's stages start from nothing or from what is there, and no other launch's job holds one of them."""
        inside = {spec.id for spec in order.stages}
        parents = {stage for spec in order.stages for stage in (spec.parent, spec.rewind) if stage} - inside
        claims = (self.run.path / CLAIMS / stage for stage in inside)
        return all(self.run.done(stage) for stage in parents) and not any(map(is_claimed, claims))

    def blocked(self, stage: str, order: JobSpec, gone: Collection[str] = ()) -> bool:
        """True when a stage comes after one that has failed, or when all its cells are gone: cancelled."""
        paths = [path.stages for path in order.cells if stage in path.stages and path.cell.id not in gone]
        return not paths or any(self.run.failure(before) is not None for path in paths for before in path[: path.index(stage)])

    def cancel(self) -> None:
        """Ends the running jobs; their checkpoints stay."""
        for entry in self.running.values():
            if entry.job:
                self.stop(entry.job)


def out_of_space(log: Path) -> bool:
    """True when a job's log says that its disk is full, or could not say anything because it is."""
    try:
        text = log.read_bytes()[-20_000:].decode(errors="replace")
        return DISK_FULL.search(text) is not None or shutil.disk_usage(log.parent).free < FULL_BYTES
    except OSError:
        return False


def complete(run: RunFolder, order: JobSpec, stage: str) -> bool:
    """True when a stage has failed, or is done and every cell that ends in it is recorded."""
    return is_over(run, StageId(stage), (CellId(path.cell.id) for path in order.cells if path.stages[-1] == stage))


def fresh_folder(parent: Path) -> Path:
    """A new numbered folder: submitit trusts result files of an earlier job with the same process id."""
    parent.mkdir(parents=True, exist_ok=True)
    number = 1 + max((int(path.name) for path in parent.iterdir() if path.name.isdigit()), default=0)
    while True:
        try:
            (parent / str(number)).mkdir()
            return parent / str(number)
        except FileExistsError:
            number += 1


def run_here(run: RunFolder, orders: Iterable[JobSpec], cluster: ClusterSpec) -> None:
    """Runs orders one after another in this process, where a debugger can see them."""
    for order in orders:
        error = submit(cluster, fresh_folder(run.path / JOBS), run_job, order, name=order.grid).exception()
        if error is not None:
            raise error
