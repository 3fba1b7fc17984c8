"""Times a few real steps of each model where the grid's jobs will run: in jobs on this machine, or in one short job on the profile."""

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from harness.cost.work import Shape, WorkKey, dense_training, key_of, shape_of
from harness.plan.containers import in_container
from harness.submit.local import fresh_folder
from harness.text import clock_time, counted, duration
from jobs.cluster.slurm import SchedulerError, ask
from jobs.cluster.slurm_arrays import submit_array
from jobs.cluster.slurm_jobs import queue_state
from jobs.cluster.submitit_jobs import stop, submit
from jobs.experiment.cell import Cell
from jobs.experiment.files import this_host
from jobs.experiment.identity import canonical, digest
from jobs.experiment.ids import JobId
from jobs.experiment.plugins import copy_in
from jobs.experiment.run_folder import RunFolder
from jobs.experiment.specs import ClusterSpec
from jobs.experiment.step_times import StepTimes, read_times
from jobs.experiment.submissions import Submission
from jobs.worker.environment import ROOT
from jobs.worker.timing import TimedModel, TimingJob, time_models
from models.plugins.loading import Loaded, write_copy

KEPT = ".times"  # under the folder of all run folders: what was timed before
SCRATCH = ".timing-"  # there, too: the beginning of the folders in which steps are timed
LEFT_S = 86_400.0  # after which such a folder is of a command that was killed
LOCAL_POLL_S, QUEUE_POLL_S = 0.2, 5.0
TIMEOUT_MIN, MODEL_MIN = 15, 3  # of the short job, and more for each model; never more than the profile's own
SEEN_S = 60.0  # for which a shared file system may hide a file of another node
LAST_LINES = 8  # of a log


class TimingError(RuntimeError):
    """No times could be had; the message says why, and what to do."""


def kept_path(runs: Path, key: WorkKey, cluster: ClusterSpec) -> Path:
    """The file with the times of a work: on this machine, or on the profile."""
    where: dict[str, Any] = {"host": this_host()} if cluster.kind != "slurm" else {name: str(value) for name, value in cluster.slurm.items()}
    return runs / KEPT / f"{digest(canonical([key, cluster.kind, cluster.nodes, cluster.tasks_per_node, cluster.gpus_per_node, where]))}.json"


def kept_times(runs: Path, wanted: Mapping[WorkKey, ClusterSpec]) -> dict[WorkKey, StepTimes]:
    """The times of these works that a previous command has left."""
    known = {key: read_times(kept_path(runs, key, cluster)) for key, cluster in wanted.items()}
    return {key: times for key, times in known.items() if times is not None}


def timed(
    runs: Path, wanted: Sequence[tuple[Cell, ClusterSpec]], plugins: Sequence[Loaded], *, name: str, side_by_side: int
) -> dict[WorkKey, StepTimes]:
    """Times the models of these cells on their clusters, and keeps the times. Raises TimingError, SchedulerError, OSError.

    name: of the jobs. side_by_side: on this machine, how many copies of the job run at the same time, since memory and caches are shared.
    """
    groups: dict[Shape, list[tuple[Cell, ClusterSpec]]] = {}
    for cell, cluster in wanted:
        groups.setdefault(shape_of(cluster), []).append((cell, cluster))
    times: dict[WorkKey, StepTimes] = {}
    for shape, members in groups.items():
        cluster = members[0][1]
        print(f"timing a few real steps of {counted(len(members), 'model')} {where_of(cluster)} ...", file=sys.stderr, flush=True)
        with scratch(runs) as run:
            for loaded in plugins:
                write_copy(loaded, run.plugins_dir)
            models = tuple(timed_model(cell, runs, shape, cluster) for cell, _ in members)
            copies = tuple(copy_in(run, loaded.plugin.sha256) for loaded in plugins)
            job = TimingJob(plugins=copies, run=str(run.path), models=models, cluster=cluster)
            if cluster.kind == "slurm":
                on_slurm(run, job, name)
            else:
                here(run, job, name, 1 if cluster.kind == "debug" else side_by_side)
        for (cell, _), model in zip(members, models, strict=True):
            if (known := read_times(Path(model.file))) is None:
                raise TimingError(f"the job that timed {cell.model.label} left no times")
            times[key_of(cell, shape)] = known
    return times


def where_of(cluster: ClusterSpec) -> str:
    """Where a job runs, for people."""
    return "in a short job on the profile" if cluster.kind == "slurm" else "on this machine"


def timed_model(cell: Cell, runs: Path, shape: Shape, cluster: ClusterSpec) -> TimedModel:
    """What the job is to time for a cell's work. Its file of a previous command is removed."""
    dense, spec = dense_training(cell)
    file = kept_path(runs, key_of(cell, shape), cluster).absolute()
    file.unlink(missing_ok=True)
    return TimedModel(cell=dense, spec=spec, file=str(file))


@contextmanager
def scratch(runs: Path) -> Iterator[RunFolder]:
    """A run folder beside the others, for as long as the block runs. Those of commands that were killed a day ago, or before, are removed."""
    runs.mkdir(parents=True, exist_ok=True)
    for left in runs.glob(f"{SCRATCH}*"):
        if time.time() - left.stat().st_mtime > LEFT_S:
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(dir=runs.absolute(), prefix=SCRATCH))
    try:
        yield RunFolder(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def here(run: RunFolder, job: TimingJob, name: str, copies: int) -> None:
    """Runs `copies` of the job on this machine, of which the first counts. Raises TimingError."""
    running = []
    try:
        for slot in range(copies):
            own = run if slot == 0 else RunFolder(run.path / f"copy-{slot}")
            models = job.models if slot == 0 else tuple(replace(model, file=str(own.path / model.spec.id)) for model in job.models)
            argument = replace(job, run=str(own.path), models=models, copies=copies, submitted=time.time())
            folder = fresh_folder(run.jobs_dir)
            running.append((submit(job.cluster, folder, time_models, argument, name=name, slot=slot), folder))
        first, folder = running[0]
        while not first.done():
            time.sleep(LOCAL_POLL_S)
        if (error := first.exception()) is not None:
            log = Submission(job=JobId(number=int(first.job_id)), stages=(), folder=folder).logs() if job.cluster.kind != "debug" else []
            raise TimingError(f"the steps could not be timed:\n{last_lines(log[0]) if log else error}")
    finally:
        for process, _ in running:
            if job.cluster.kind != "debug":
                stop(process)


def on_slurm(run: RunFolder, job: TimingJob, name: str) -> None:
    """Runs one short job on the profile, and waits for it; Ctrl-C ends it. Raises TimingError, SchedulerError."""
    minutes = TIMEOUT_MIN + MODEL_MIN * len(job.models)
    shorter = replace(job.cluster, timeout_min=min(minutes, job.cluster.timeout_min))
    runs = RunFolder(run.path.parent)  # where the times are kept, too
    cluster = in_container(shorter, runs, [model.cell for model in job.models], ROOT)
    folder = fresh_folder(run.jobs_dir)
    (number,) = submit_array(cluster, folder, time_models, {0: replace(job, cluster=cluster)}, name=f"{name}-timing").values()
    submission = Submission(job=number, stages=(), folder=folder)
    print(f"SLURM job {number} was submitted; Ctrl-C ends it", file=sys.stderr, flush=True)
    try:
        ended = wait(number)
    except BaseException:
        cancel(number)
        raise
    until = time.monotonic() + (SEEN_S if ended in ("COMPLETED", "ENDED") else 0.0)
    while missing := [model for model in job.models if not Path(model.file).exists()]:
        if time.monotonic() >= until:
            log = submission.logs()
            text = last_lines(log[0]) if log else f"it left no log in {folder}"
            raise TimingError(f"SLURM job {number} ({ended}) left no times of {missing[0].cell.model.label}:\n{text}")
        time.sleep(QUEUE_POLL_S)


def wait(number: JobId) -> str:
    """The state in which a job has ended. Says why it waits, and when SLURM expects it to start."""
    shown = ""
    while (state := queue_state([number])[number]).alive:
        start = f", expected to start at {clock_time(state.expected_start, datetime.now())}" if state.expected_start else ""
        text = f"SLURM job {number}: {state.state}" + (f" ({state.reason}{start})" if not state.running else f", {duration(state.elapsed_s)}")
        if (word := text if not state.running else state.state) != shown:
            print(text, file=sys.stderr, flush=True)
            shown = word
        time.sleep(QUEUE_POLL_S)
    return state.state


def cancel(number: JobId) -> None:
    """Ends a job; prints SLURM's error if it cannot."""
    try:
        ask("scancel", str(number), patience_s=0.0)
    except SchedulerError as error:
        print(f"SLURM job {number} may still run: {error}", file=sys.stderr)


def last_lines(log: Path) -> str:
    """The end of a log."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return "\n".join(f"  {line}" for line in lines[-LAST_LINES:])
