"""python -m harness.launch grid.yaml: runs every cell of the grid that is not done yet.

Exit codes: 0: all well; 1: some cells failed; 2: configuration or usage; 3: nothing to do; 130: interrupted.
"""

import argparse
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from harness.cost.budget import BudgetError
from harness.cost.costs import Costs, add_options, misuse
from harness.cost.timing import TimingError
from harness.grid.read import Grid, read_grid
from harness.grid.yaml_source import GridError
from harness.monitor.survey import cell_states
from harness.plan.containers import in_container
from harness.plan.dry_run import describe
from harness.plan.jobs import done_stages, make_jobs, planned_cells, to_replay
from harness.plan.preflight import Findings, can_be_planned_elsewhere, check_machine, model_problems, preflight
from harness.plan.sizes import other_ranks, stage_clusters
from harness.plan.snapshot import cells_with_new_labels, edited_plugins, refresh_labels, save_launch, warn_of_stale_records
from harness.plan.stages import StageGraph, make_graph
from harness.submit.data_first import cores, data_sets, missing, prepare_here, title, written_here
from harness.submit.previous import assign, previous_jobs
from harness.text import counted, no_current_folder
from jobs.cluster.claims import claimed, holder
from jobs.cluster.slurm import SchedulerError
from jobs.cluster.surroundings import forget_outer_job
from jobs.experiment.cell import Cell
from jobs.experiment.collector import collect_rarely
from jobs.experiment.ids import CellId
from jobs.experiment.job import JobSpec, PlannedCell
from jobs.experiment.output import lost_output, replace_unencodable, tells_lost_output
from jobs.experiment.records import RecordError
from jobs.experiment.rewinds import ask_for_replay
from jobs.experiment.run_folder import RUNS, RunFolder
from jobs.experiment.specs import ClusterSpec
from jobs.recovery.leftovers import remove_asides, remove_leftovers
from jobs.recovery.nodes import around_bad_nodes
from jobs.worker.code_copy import CodeChanged, described, keep_code, other_code, running_from, surroundings_of
from jobs.worker.notify import save_notice, tell
from models.closed_pipe import CLOSED_PIPE

OK, SOME_FAILED, USAGE, NOTHING_TO_DO, INTERRUPTED = 0, 1, 2, 3, 130
RETRY_HINT = "--retry-failed runs them again"


@tells_lost_output(SOME_FAILED)
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    replace_unencodable()
    collect_rarely()
    forget_outer_job()
    options = parse(arguments)
    if problem := no_current_folder():
        print(problem, file=sys.stderr)
        return USAGE
    try:
        if problem := misuse(options):
            print(problem, file=sys.stderr)
            return USAGE
        grid = read_grid(options.grid)
    except (GridError, BudgetError) as error:
        print(error, file=sys.stderr)
        return USAGE
    run = RunFolder(options.runs / grid.name)
    if not options.new_code and (copy := other_code(run)):
        launch_from(copy, sys.argv[1:] if arguments is None else arguments)
    try:
        return plan_and_launch(grid, run, options)
    except (RecordError, BudgetError, CodeChanged) as error:
        print(error, file=sys.stderr)
        return USAGE
    except TimingError as error:
        print(error, file=sys.stderr)
        return SOME_FAILED
    except BrokenPipeError:
        if options.dry_run:
            raise
        print("stopped: the program that read the output has ended; checkpoints are kept, and the same command resumes from them", file=sys.stderr)
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # what Python still holds for the pipe has no reader
        return SOME_FAILED
    except OSError as error:
        sentence = lost_output(error) or f"{unwritable(error, run.path)}, or choose another folder with --runs."
        print(sentence, file=sys.stderr)
        print("Finished work is kept; the same command resumes from the last checkpoints.", file=sys.stderr)
        return SOME_FAILED
    except SchedulerError as error:
        print(f"{error}: nothing was submitted; running jobs go on; launch again later", file=sys.stderr)
        return SOME_FAILED
    except KeyboardInterrupt:
        print("stopped; checkpoints are kept, and the same command resumes from them")
        return INTERRUPTED


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m harness.launch", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("grid", type=Path, help="a grid.yaml")
    parser.add_argument("--dry-run", action="store_true", help="print cells, shared stages and jobs; run and write nothing")
    add_options(parser)
    parser.add_argument("--retry-failed", action="store_true", help="run failed cells again, from their last checkpoint")
    parser.add_argument("--new-code", action="store_true", help="run what is left with the code as it is now, not as it was first launched")
    parser.add_argument("--runs", type=Path, default=RUNS, help="the folder of all run folders (default: %(default)s)")
    return parser.parse_args(arguments)


def launch_from(copy: Path, arguments: Sequence[str]) -> NoReturn:
    """Becomes the same command, run by the code with which the run was launched before."""
    kept = f"the code with which it was launched ({described(copy)}), kept in {copy}"
    print(f"this run goes on with {kept}; --new-code takes this one", file=sys.stderr, flush=True)
    os.execve(sys.executable, [sys.executable, "-m", "harness.launch", *arguments], os.environ | surroundings_of(copy, os.environ))


def plan_and_launch(grid: Grid, run: RunFolder, options: argparse.Namespace) -> int:
    """Checks what is left to run, then prints or runs it; returns the exit code.

    Raises RecordError, BudgetError, CodeChanged, TimingError, OSError, SchedulerError, KeyboardInterrupt.
    """
    costs = Costs(run=run, options=options)
    grid = costs.within(grid)
    graph = make_graph(grid.cells)
    cells = planned_cells(grid, graph)
    left, failed = to_run(run, cells, options.retry_failed)
    warn_of_stale_records(run, cells, grid.left_out)
    print("".join(f"{note}\n" for note in (*grid.notes, *edited_plugins(grid, run))), end="", file=sys.stderr)
    to_check = [planned.cell for planned in left]
    plan_only = options.dry_run and can_be_planned_elsewhere(grid.cluster)
    findings = Findings(problems=model_problems(grid, to_check)) if plan_only else preflight(grid, to_check)
    if findings.problems:
        print("\n".join(findings.problems), file=sys.stderr)
        return USAGE
    print("".join(f"{note}\n" for note in findings.notes), end="", file=sys.stderr)
    if costs.wanted:
        costs.gather(grid, graph, left, can_run=not plan_only)
        grid = costs.choose(grid, graph, left)
        graph = make_graph(grid.cells)
        cells = planned_cells(grid, graph)
        left, failed = to_run(run, cells, options.retry_failed)
    if options.dry_run:
        show_plan(grid, graph, run, left, costs, to_check, plan_only=plan_only)
        return OK
    if not left:
        hint = f", {len(failed)} failed: {RETRY_HINT}" if failed else ""
        print(f"nothing to do: {len(cells) - len(failed)} of {len(cells)} cells are done{hint}", flush=True)
        keep_what_changed(grid, graph, run, costs)
        publish(run)
        return NOTHING_TO_DO
    with claimed(run.launch_lock, wait=False) as alone:
        if not alone:
            print(f"nothing to do: {holder(run.launch_lock)} is launching this grid already")
            return NOTHING_TO_DO
        costs.keep()
        return launch(grid, graph, run, options.retry_failed)


def show_plan(
    grid: Grid, graph: StageGraph, run: RunFolder, left: Sequence[PlannedCell], costs: Costs, to_check: Sequence[Cell], *, plan_only: bool
) -> None:
    """Prints what a launch would run, the data that it would write first, and what it would cost.

    to_check: the cells whose data and machine matter, also those that a budget leaves out. plan_only: this machine cannot be asked for either.
    """
    print(describe(graph, grid, make_jobs(grid, graph, run, left), done=done_stages(graph, run)))
    if not plan_only and (to_write := missing(grid.cluster, data_sets(to_check))):
        print(f"data to write first: {', '.join(map(title, to_write))}")
    if costs.options.estimate:
        print("\n" + costs.text(grid, graph, left))
    if plan_only:
        unchecked = [f"  {problem}" for problem in check_machine(grid, to_check).problems]
        print("\n".join(["", "not checked, because no SLURM answers on this machine:", *unchecked]))


def keep_what_changed(grid: Grid, graph: StageGraph, run: RunFolder, costs: Costs) -> None:
    """Keeps a new budget and new labels where there is nothing to run, unless another launch is at work."""
    if not (costs.to_keep or cells_with_new_labels(grid, graph, run)):
        return
    with claimed(run.launch_lock, wait=False) as alone:
        if alone:
            costs.keep()
            show_new_labels(grid, graph, run)


def launch(grid: Grid, graph: StageGraph, run: RunFolder, retry_failed: bool) -> int:
    """Runs the cells that are left and that no previous launch has, and publishes the leaderboard; returns the exit code.

    The caller holds the launch lock: no other launch of this grid works at the same time.
    """
    clusters = stage_clusters(grid, graph)
    previous = previous_jobs(run, graph, grid.cluster, clusters)
    cells = planned_cells(grid, graph)
    wanted = to_run(run, cells, retry_failed)[0]
    run.want(planned.cell.id for planned in wanted)
    assignment, chained = assign(run, wanted, previous), grid.cluster.kind == "slurm"
    for line in (*previous.messages, *assignment.messages(previous.living, queued=chained)):
        print(line, flush=True)
    left = (*assignment.own, *assignment.dependent) if chained else assignment.own
    if not left:
        waits = assignment.elsewhere or assignment.dependent
        print("nothing to do until the jobs of the previous launch have ended" if waits else "nothing to do", flush=True)
        show_new_labels(grid, graph, run)
        return NOTHING_TO_DO
    own = {stage: clusters[stage] for planned in left for stage in planned.stages if stage not in previous.living}
    if problems := other_ranks(run, own):
        print("\n".join(problems), file=sys.stderr)
        return USAGE
    data = data_sets(planned.cell for planned in left)
    if not prepare_here(grid.cluster, [spec for spec in data if not chained or written_here(spec)], workers=cores(), quiet=True):
        return SOME_FAILED
    forgotten = (stage for planned in left for stage in (planned.stages if retry_failed else planned.required))  # a failed trial stays spent
    run.forget_failures(forgotten, (planned.cell.id for planned in left))
    remove_asides(run.path)
    remove_leftovers(run, (stage for planned in left for stage in planned.stages))
    save_launch(grid, graph, run)
    copy = keep_code(run)
    launched = save_notice(run, grid.cluster.notify)
    for stage in to_replay(graph, run):
        ask_for_replay(run.stage_dir(stage))
    grid = replace(grid, cluster=around_bad_nodes(run, grid.cluster))
    if chained:
        inside = grid.cluster.container and in_container(grid.cluster, run, [planned.cell for planned in left], copy)
        grid = replace(grid, cluster=inside or runs_copy(grid.cluster, copy))
    jobs = make_jobs(grid, graph, run, left, held=previous.living)
    print(f"{grid.name}: {len(left)} of {len(grid.cells)} cells to run, in {counted(len(jobs), 'job')}, in {run.path}", flush=True)
    if grid.cluster.kind == "slurm":
        from harness.submit.data_jobs import submit_data
        from harness.submit.slurm import submit_arrays

        print("\n".join(submit_arrays(grid.cluster, run, jobs, previous.living, submit_data(grid.cluster, run, data))))
        return OK
    with running_from(copy):
        run_locally(grid.cluster, run, jobs, left)
        published = publish(run)
    tell(run, "end", launch=launched)
    failed = len(failed_cells(run, cells))
    if failed:
        print(f"{failed} of {len(grid.cells)} cells failed: {RETRY_HINT}")
    return OK if published and not failed else SOME_FAILED


def runs_copy(cluster: ClusterSpec, copy: Path) -> ClusterSpec:
    """A cluster whose jobs run a copy of the code, before what the profile, or else this shell, has in PYTHONPATH."""
    return replace(cluster, environment={**cluster.environment, **surroundings_of(copy, {**os.environ, **cluster.environment})})


def show_new_labels(grid: Grid, graph: StageGraph, run: RunFolder) -> None:
    """Takes over the labels that the grid has changed since the previous launch, and says so. The caller holds the launch lock."""
    renamed = cells_with_new_labels(grid, graph, run)
    if renamed:
        refresh_labels(grid, graph, run)
        print(f"tables now show the labels of this grid for {counted(len(renamed), 'cell')}; records keep those under which they ran", flush=True)


def to_run(run: RunFolder, cells: Sequence[PlannedCell], retry_failed: bool) -> tuple[tuple[PlannedCell, ...], frozenset[CellId]]:
    """The cells to run, and those that have failed: they, or a stage before their end."""
    states = cell_states(run, {planned.cell.id: planned.required for planned in cells})
    failed = frozenset(cell for cell, state in states.items() if state in ("failed", "blocked"))
    return tuple(planned for planned in cells if states[planned.cell.id] == "open" or (retry_failed and planned.cell.id in failed)), failed


def failed_cells(run: RunFolder, cells: Sequence[PlannedCell]) -> frozenset[CellId]:
    """The cells that have failed: they, or a stage before their end."""
    return to_run(run, cells, retry_failed=False)[1]


def unwritable(error: OSError, run: Path) -> str:
    """Why a run folder cannot be written, and what helps; the caller ends the sentence."""
    path = Path(error.filename or run)
    if error.errno not in (errno.EACCES, errno.EPERM):
        return f"cannot write {path}: {error.strerror}; free space there"
    denied = next((parent for parent in (path, *path.parents) if parent.exists()), path)
    try:
        owner = denied.owner()
    except (KeyError, OSError):
        owner = "another user"
    remedy = f"ask the owner to run: chmod -R g+w {run}, and to set umask 002 before launching"
    return f"cannot write {path}: {error.strerror}. {denied} belongs to {owner}; {remedy}"


def run_locally(cluster: ClusterSpec, run: RunFolder, jobs: Sequence[JobSpec], cells: tuple[PlannedCell, ...]) -> None:
    """Runs the jobs on this machine, and shows their progress."""
    from harness.submit.local import LocalQueue, run_here
    from harness.submit.progress import ProgressDisplay

    for signum in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signum) != signal.SIG_IGN:  # under nohup SIGHUP stays ignored
            signal.signal(signum, interrupt)
    if cluster.kind == "debug":
        run_here(run, jobs, cluster)
        return
    with ProgressDisplay(run, cells) as display:
        LocalQueue.of(run, jobs, cluster).drain(display)


def interrupt(signum: int, frame: object) -> NoReturn:
    """SIGTERM, and a terminal that goes away, end a launch as Ctrl-C does."""
    raise KeyboardInterrupt


def publish(run: RunFolder) -> bool:
    """True when the leaderboard was written and, if anybody reads, printed. A process of its own: the harness does not import analysis."""
    return subprocess.run([sys.executable, "-m", "analysis", str(run.path)], check=False).returncode in (OK, CLOSED_PIPE)


if __name__ == "__main__":
    sys.exit(main())
