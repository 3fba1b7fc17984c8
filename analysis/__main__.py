"""`python -m analysis runs/<grid> ...`: leaderboards out of run folders."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.merge import AnalysisError


def main(argv: Sequence[str]) -> int:
    """The exit code: 0 written, 2 nothing to write or wrong usage."""
    options = parser().parse_args(argv)
    try:
        return write(options.runs, options.out)
    except AnalysisError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def write(runs: Sequence[Path], out: Path | None) -> int:
    """Writes and prints everything. Raises AnalysisError."""
    from rich.console import Console

    from analysis.leaderboard import publish

    if out is None and len(runs) > 1:
        raise AnalysisError("several run folders: say with -o where the tables of all of them go")
    published = publish(runs, out or runs[0])
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(published.table)
    console.print(f"{published.leaderboard}\n{published.cells}", markup=False, highlight=False, soft_wrap=True)
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m analysis", description="Leaderboards out of the records of run folders.")
    made.add_argument("runs", type=Path, nargs="+", metavar="runs/<grid>", help="run folders, also copied from other machines")
    made.add_argument("-o", "--out", type=Path, help="folder to write to; default: the run folder, when there is one")
    return made


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
