"""python -m harness.launch grid.yaml: every cell of the grid that is not done yet.

Exit codes: 0 all well, 1 some cells failed, 2 configuration or usage, 3 nothing to do, 130 interrupted.
"""

import argparse
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from jobs.claims import claimed, holder
from harness.environment import code_version, git
from harness.forest import write_forest
from harness.grid import Grid, GridError, read_grid
from harness.orders import CellPath, Order, cell_paths, done_stages, make_orders, make_packs, to_replay
from harness.plan import Plan, describe, make_plan
from harness.preflight import preflight
from harness.records import RecordError, RunFolder
from jobs.files import write_json, written_aside
from jobs.rewinds import ask_for_replay
from jobs.specs import ClusterSpec

OK, SOME_FAILED, USAGE, NOTHING_TO_DO, INTERRUPTED = 0, 1, 2, 3, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    options = parse(arguments)
    try:
        grid = read_grid(options.grid)
    except GridError as error:
        print(error, file=sys.stderr)
        return USAGE
    plan = make_plan(grid.cells)
    run = RunFolder(options.runs / grid.name)
    try:
        return plan_and_launch(grid, plan, run, options)
    except RecordError as error:
        print(error, file=sys.stderr)
        return USAGE
    except OSError as error:
        print(f"cannot write {error.filename or run.path}: {error.strerror}; free space there, or choose another folder with --runs.", file=sys.stderr)
        print("What is done is kept, and the same command goes on from the last checkpoints.", file=sys.stderr)
        return SOME_FAILED
    except KeyboardInterrupt:
        print("stopped; checkpoints are kept and the same command goes on from them")
        return INTERRUPTED


def plan_and_launch(grid: Grid, plan: Plan, run: RunFolder, options: argparse.Namespace) -> int:
    """Checks what is left to run, then says or runs it. Raises RecordError, OSError, KeyboardInterrupt."""
    paths = cell_paths(grid, plan)
    states = {path.cell.id: state(run, path) for path in paths}
    wanted = ("open", "failed") if options.retry_failed else ("open",)
    left = tuple(path for path in paths if states[path.cell.id] in wanted)
    warn_of_strangers(run, paths)
    if options.dry_run or left:
        problems = preflight(grid.cluster, [path.cell for path in left])
        if problems:
            print("\n".join(f"{grid.path}: {problem}" for problem in problems), file=sys.stderr)
            return USAGE
    if options.dry_run:
        print(describe(plan, grid, make_packs(grid, plan, run, left), done=done_stages(plan, run)))
        return OK
    if not left:
        failed = sum(value == "failed" for value in states.values())
        print(f"nothing to do: {len(paths) - failed} of {len(paths)} cells are done{failed_hint(failed)}")
        publish(run)
        return NOTHING_TO_DO
    with claimed(run.path / "launch.lock", wait=False) as alone:
        if not alone:
            print(f"this grid is being launched already, by {holder(run.path / 'launch.lock')}; nothing to do")
            return NOTHING_TO_DO
        failed_before = [path for path in left if states[path.cell.id] == "failed"]
        run.forget_failures((stage for path in failed_before for stage in path.stages), (path.cell.id for path in failed_before))
        return launch(grid, plan, run, left)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m harness.launch", description=__doc__.splitlines()[0])
    parser.add_argument("grid", type=Path, help="a grid.yaml")
    parser.add_argument("--dry-run", action="store_true", help="print cells, shared stages and jobs; run and write nothing")
    parser.add_argument("--retry-failed", action="store_true", help="run failed cells again, from their last checkpoint")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where run folders are kept (default: runs)")
    return parser.parse_args(arguments)


def launch(grid: Grid, plan: Plan, run: RunFolder, left: Sequence[CellPath]) -> int:
    """Runs what is left of the grid and publishes the leaderboard."""
    freeze(grid, plan, run)
    for stage in to_replay(plan, run):
        ask_for_replay(run.stage(stage))
    orders = make_orders(grid, plan, run, left)
    print(f"{grid.name}: {len(left)} of {len(grid.cells)} cells to run, in {len(orders)} jobs, in {run.path}", flush=True)
    if grid.cluster.kind == "slurm":
        from harness.arrays import submit_arrays

        print("\n".join(submit_arrays(grid.cluster, run, orders)))
        return OK
    run_locally(grid.cluster, run, orders, tuple(left))
    published = publish(run)
    failed = sum(state(run, path) == "failed" for path in cell_paths(grid, plan))
    if failed:
        print(f"{failed} of {len(grid.cells)} cells failed{failed_hint(failed)}")
    return OK if published and not failed else SOME_FAILED


def state(run: RunFolder, path: CellPath) -> str:
    """done, failed (it or a stage before its end), or open."""
    record = run.record(path.cell.id)
    if record is not None:
        return record.status
    return "failed" if any(run.failure(stage) for stage in path.stages) else "open"


def failed_hint(failed: int) -> str:
    """How to go on when cells failed, empty when none did."""
    return f", {failed} failed: --retry-failed runs them again" if failed else ""


def warn_of_strangers(run: RunFolder, paths: Sequence[CellPath]) -> None:
    """Names what the run folder holds that this grid would not make today: cells of an earlier grid of the same name, and cells run when defaults were others.

    The latter have the same id because they differ in a default alone.
    """
    ours = {path.cell.id for path in paths}
    others = sum(path.parent.name not in ours for path in run.path.glob("cells/*/record.json"))
    if others:
        print(f"warning: {run.path} also holds {others} cells of an earlier grid called {run.path.name}; they stay, and stand in its leaderboard", file=sys.stderr)
    for path in paths:
        record = run.record(path.cell.id)
        if record is not None and settings(record.spec) != settings(path.cell.to_json()):
            print(f"warning: cell {record.id} was run when defaults were others; remove {run.record_path(record.id)} to run it again", file=sys.stderr)


def settings(spec: Mapping[str, Any]) -> tuple[Any, ...]:
    """What decides a result of a cell's JSON form: all but labels and the places of files."""
    data = {key: value for key, value in spec["data"].items() if key not in ("path", "test_path")}
    return spec["model"]["options"], spec["pruning"]["knobs"], data, spec["recipe"]


def run_locally(cluster: ClusterSpec, run: RunFolder, orders: Sequence[Order], cells: tuple[CellPath, ...]) -> None:
    """Runs the orders on this machine, with progress."""
    from harness.queue import LocalQueue, run_here
    from harness.watch import Watch

    for stopping in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(stopping) != signal.SIG_IGN:  # nohup ignores SIGHUP, and means it
            signal.signal(stopping, interrupt)
    if cluster.kind == "debug":
        run_here(run, orders, cluster)
        return
    with Watch(run, cells) as watch:
        LocalQueue.of(run, orders, cluster).drain(watch)


def interrupt(signum: int, frame: object) -> NoReturn:
    """SIGTERM, and a terminal that goes away, end a launch as Ctrl-C does."""
    raise KeyboardInterrupt


def freeze(grid: Grid, plan: Plan, run: RunFolder) -> None:
    """Keeps the grid as launched, what it expands to, and the code that runs it."""
    with written_aside(run.path / "grid.yaml") as aside:
        aside.write_text(grid.source)
    cells = {cell.id: {"stages": list(plan.paths[cell.id]), **cell.to_json()} for cell in grid.cells}
    write_json(run.path / "plan.json", {"grid": grid.name, "cells": cells})
    write_forest(run, grid, plan)
    commit, dirty = code_version()
    write_json(run.path / "code.json", {"commit": commit, "dirty": dirty})
    if dirty:
        with written_aside(run.path / "code.diff") as aside:
            aside.write_text(git("diff", "HEAD") or "")


def publish(run: RunFolder) -> bool:
    """True when the leaderboard was written and printed. A process of its own: analysis stands above the harness and imports no torch."""
    return subprocess.run([sys.executable, "-m", "analysis", str(run.path)], check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
