"""python -m harness.prepare grid.yaml: writes the data files that the grid needs, before any job trains.

Exit codes: 0: the data is ready; 1: it could not be written; 2: configuration or usage; 130: interrupted.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.grid.read import Grid, read_grid
from harness.grid.yaml_source import GridError
from harness.submit.data_first import cores, data_sets, prepare_here
from jobs.cluster.surroundings import forget_outer_job
from jobs.experiment.output import replace_unencodable

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


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
    problems = data_problems(grid)
    if problems:
        print("\n".join(problems), file=sys.stderr)
        return USAGE
    try:
        return OK if prepare_here(grid.cluster, data_sets(grid.cells), workers=options.workers) else FAILED
    except KeyboardInterrupt:
        print("stopped; what is written is kept, and the same command goes on from it")
        return INTERRUPTED


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m harness.prepare", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("grid", type=Path, help="a grid.yaml")
    parser.add_argument("--workers", type=workers, default=cores(), help="processes that write (default: the cores of this machine, %(default)s)")
    return parser.parse_args(arguments)


def workers(text: str) -> int:
    """A number of processes. Raises ValueError."""
    if (number := int(text)) < 1:
        raise ValueError
    return number


def data_problems(grid: Grid) -> list[str]:
    """Data sets that this machine cannot prepare, with their lines."""
    from jobs.data.prepare import check_data

    return [f"{grid.location(data)}: {problem}" for data in data_sets(grid.cells) for problem in check_data(data)]


if __name__ == "__main__":
    sys.exit(main())
