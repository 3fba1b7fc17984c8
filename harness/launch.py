"""python -m harness.launch grid.yaml: every cell of the grid that is not done yet.

Exit codes: 0 all well, 1 some cells failed, 2 configuration or usage, 3 nothing to do, 130 interrupted.
"""

import argparse
import errno
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from harness.grid.read import Grid, read_grid
from harness.grid.yaml_source import GridError
from harness.plan.dry_run import describe
from harness.plan.jobs import done_stages, make_jobs, planned_cells, to_replay
from harness.plan.preflight import preflight
from harness.plan.snapshot import save_launch, warn_of_stale_records
from harness.plan.stages import StageGraph, make_graph
from harness.submit.previous import assign, previous_jobs
from jobs.cluster.claims import claimed, holder
from jobs.cluster.slurm import SchedulerError
from jobs.experiment.job import JobSpec, PlannedCell
from jobs.experiment.records import RecordError
from jobs.experiment.rewinds import ask_for_replay
from jobs.experiment.run_folder import LAUNCH_LOCK, RUNS, RunFolder
from jobs.experiment.specs import ClusterSpec
from jobs.recovery.nodes import around_bad_nodes

OK, SOME_FAILED, USAGE, NOTHING_TO_DO, INTERRUPTED = 0, 1, 2, 3, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    options = parse(arguments)
    try:
        grid = read_grid(options.grid)
    except GridError as error:
        print(error, file=sys.stderr)
        return USAGE
    plan = make_graph(grid.cells)
    run = RunFolder(options.runs / grid.name)
    try:
        return plan_and_launch(grid, plan, run, options)
    except RecordError as error:
        print(error, file=sys.stderr)
        return USAGE
    except OSError as error:
        print(f"{unwritable(error, run.path)}, or choose another folder with --runs.", file=sys.stderr)
        print("What is done is kept, and the same command goes on from the last checkpoints.", file=sys.stderr)
        return SOME_FAILED
    except SchedulerError as error:
        print(f"{error}: nothing was submitted, and what runs goes on; launch again later", file=sys.stderr)
        return SOME_FAILED
    except KeyboardInterrupt:
        print("stopped; checkpoints are kept and the same command goes on from them")
        return INTERRUPTED


def plan_and_launch(grid: Grid, plan: StageGraph, run: RunFolder, options: argparse.Namespace) -> int:
    """Checks what is left to run, then says or runs it. Raises RecordError, OSError, SchedulerError, KeyboardInterrupt."""
    paths = planned_cells(grid, plan)
    left, failed = to_run(run, paths, options.retry_failed)
    warn_of_stale_records(run, paths)
    if options.dry_run or left:
        problems = preflight(grid, [path.cell for path in left])
        if problems:
            print("\n".join(problems), file=sys.stderr)
            return USAGE
    if options.dry_run:
        print(describe(plan, grid, make_jobs(grid, plan, run, left), done=done_stages(plan, run)))
        return OK
    if not left:
        print(f"nothing to do: {len(paths) - len(failed)} of {len(paths)} cells are done{failed_hint(len(failed))}")
        publish(run)
        return NOTHING_TO_DO
    with claimed(run.path / LAUNCH_LOCK, wait=False) as alone:
        if not alone:
            print(f"this grid is being launched already, by {holder(run.path / 'launch.lock')}; nothing to do")
            return NOTHING_TO_DO
        return launch(grid, plan, run, options.retry_failed)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m harness.launch", description=__doc__.splitlines()[0])
    parser.add_argument("grid", type=Path, help="a grid.yaml")
    parser.add_argument("--dry-run", action="store_true", help="print cells, shared stages and jobs; run and write nothing")
    parser.add_argument("--retry-failed", action="store_true", help="run failed cells again, from their last checkpoint")
    parser.add_argument("--runs", type=Path, default=RUNS, help="where run folders are kept (default: %(default)s)")
    return parser.parse_args(arguments)


def launch(grid: Grid, plan: StageGraph, run: RunFolder, retry_failed: bool) -> int:
    """Runs what is left of the grid and no earlier launch has, and publishes the leaderboard. Nobody else launches meanwhile."""
    previous = previous_jobs(run, plan, grid.cluster)
    paths = planned_cells(grid, plan)
    wanted = to_run(run, paths, retry_failed)[0]
    run.want(path.cell.id for path in wanted)
    assignment, chained = assign(run, wanted, previous), grid.cluster.kind == "slurm"
    for line in (*previous.messages, *assignment.messages(previous.living, queued=chained)):
        print(line, flush=True)
    left = (*assignment.own, *assignment.dependent) if chained else assignment.own
    if not left:
        print("nothing to do until then" if assignment.elsewhere or assignment.dependent else "nothing to do")
        return NOTHING_TO_DO
    run.forget_failures((stage for path in left for stage in path.stages), (path.cell.id for path in left))
    save_launch(grid, plan, run)
    for stage in to_replay(plan, run):
        ask_for_replay(run.stage_dir(stage))
    grid = replace(grid, cluster=around_bad_nodes(run, grid.cluster))
    jobs = make_jobs(grid, plan, run, left, held=previous.living)
    print(f"{grid.name}: {len(left)} of {len(grid.cells)} cells to run, in {len(jobs)} jobs, in {run.path}", flush=True)
    if grid.cluster.kind == "slurm":
        from harness.submit.slurm import submit_arrays

        print("\n".join(submit_arrays(grid.cluster, run, jobs, previous.living)))
        return OK
    run_locally(grid.cluster, run, jobs, left)
    published = publish(run)
    failed = sum(state(run, path) == "failed" for path in paths)
    if failed:
        print(f"{failed} of {len(grid.cells)} cells failed{failed_hint(failed)}")
    return OK if published and not failed else SOME_FAILED


def to_run(run: RunFolder, paths: Sequence[PlannedCell], retry_failed: bool) -> tuple[tuple[PlannedCell, ...], tuple[PlannedCell, ...]]:
    """The cells that are to be run, and those that have failed."""
    states = {path.cell.id: state(run, path) for path in paths}
    wanted = ("open", "failed") if retry_failed else ("open",)
    return tuple(path for path in paths if states[path.cell.id] in wanted), tuple(path for path in paths if states[path.cell.id] == "failed")


def state(run: RunFolder, path: PlannedCell) -> str:
    """done, failed (it or a stage before its end), or open."""
    record = run.record(path.cell.id)
    if record is not None:
        return record.status
    return "failed" if any(run.failure(stage) for stage in path.stages) else "open"


def unwritable(error: OSError, run: Path) -> str:
    """Why a run folder cannot be written, and what helps; the end of the sentence is left to the caller."""
    path = Path(error.filename or run)
    if error.errno not in (errno.EACCES, errno.EPERM):
        return f"cannot write {path}: {error.strerror}; free space there"
    denied = next((one for one in (path, *path.parents) if one.exists()), path)
    try:
        owner = denied.owner()
    except (KeyError, OSError):
        owner = "another user"
    remedy = f"ask them to say: chmod -R g+w {run}, and umask 002 before they launch"
    return f"cannot write {path}: {error.strerror}. {denied} belongs to {owner}; {remedy}"


def failed_hint(failed: int) -> str:
    """How to go on when cells failed, empty when none did."""
    return f", {failed} failed: --retry-failed runs them again" if failed else ""


def run_locally(cluster: ClusterSpec, run: RunFolder, jobs: Sequence[JobSpec], cells: tuple[PlannedCell, ...]) -> None:
    """Runs the jobs on this machine, with progress."""
    from harness.submit.local import LocalQueue, run_here
    from harness.submit.progress import ProgressDisplay

    for stopping in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(stopping) != signal.SIG_IGN:  # nohup ignores SIGHUP, and means it
            signal.signal(stopping, interrupt)
    if cluster.kind == "debug":
        run_here(run, jobs, cluster)
        return
    with ProgressDisplay(run, cells) as display:
        LocalQueue.of(run, jobs, cluster).drain(display)


def interrupt(signum: int, frame: object) -> NoReturn:
    """SIGTERM, and a terminal that goes away, end a launch as Ctrl-C does."""
    raise KeyboardInterrupt


def publish(run: RunFolder) -> bool:
    """True when the leaderboard was written and printed. A process of its own: analysis stands above the harness and imports no torch."""
    return subprocess.run([sys.executable, "-m", "analysis", str(run.path)], check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
