"""python -m harness.prepare grid.yaml: writes the data files that the grid needs, before any job trains.

Exit codes: 0: the data is ready; 1: it could not be written; 2: configuration or usage; 130: interrupted.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.grid.read import Grid, read_grid
from harness.grid.yaml_source import GridError
from harness.plan.containers import container_problems, in_container
from harness.plan.snapshot import save_plugins
from harness.submit.data_first import cores, data_sets, prepare_here
from harness.text import counted
from jobs.cluster.slurm import SchedulerError, available
from jobs.cluster.surroundings import forget_outer_job
from jobs.experiment.output import replace_unencodable, tells_lost_output
from jobs.experiment.run_folder import RUNS, RunFolder
from jobs.worker.environment import ROOT

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


@tells_lost_output(FAILED)
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    replace_unencodable()
    forget_outer_job()
    options = parse(arguments)
    try:
        grid = read_grid(options.grid)
    except GridError as error:
        print(error, file=sys.stderr)
        return USAGE
    if problems := [*data_problems(grid), *container_problems(grid.cluster, grid.cells)]:
        print("\n".join(problems), file=sys.stderr)
        return USAGE
    run = RunFolder(options.runs / grid.name)
    try:
        if options.workers is None and grid.cluster.kind == "slurm" and available():
            save_plugins(grid, run)
            return submit(grid, run)
        return OK if prepare_here(grid.cluster, data_sets(grid.cells), workers=options.workers or cores()) else FAILED
    except KeyboardInterrupt:
        print("stopped; what is written is kept, and the same command goes on from it")
        return INTERRUPTED


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m harness.prepare", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("grid", type=Path, help="a grid.yaml")
    parser.add_argument(
        "--workers", type=workers, help="write here, with so many processes (default: SLURM jobs for a grid on SLURM, else all cores)"
    )
    parser.add_argument("--runs", type=Path, default=RUNS, help="the folder of all run folders, for the logs of SLURM jobs (default: %(default)s)")
    return parser.parse_args(arguments)


def workers(text: str) -> int:
    """A number of processes. Raises ValueError."""
    if (number := int(text)) < 1:
        raise ValueError
    return number


def submit(grid: Grid, run: RunFolder) -> int:
    """Submits the jobs that write what is missing; returns the exit code."""
    from harness.submit.data_jobs import submit_data
    from jobs.data.prepare import DataError

    data = data_sets(grid.cells)
    try:
        if not submit_data(in_container(grid.cluster, run, grid.cells, ROOT), run, data):
            print(f"nothing to do: {counted(len(data), 'data set')} ready in {grid.cluster.cache}")
    except (SchedulerError, DataError) as error:
        print(error, file=sys.stderr)
        return FAILED
    return OK


def data_problems(grid: Grid) -> list[str]:
    """Data sets that this machine cannot prepare, with their lines."""
    from jobs.data.prepare import check_data

    return [f"{grid.location(data)}: {problem}" for data in data_sets(grid.cells) for problem in check_data(data)]


if __name__ == "__main__":
    sys.exit(main())
