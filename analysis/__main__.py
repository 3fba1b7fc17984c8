"""`python -m analysis runs/<grid> ...`: leaderboards and a report out of run folders."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.merge import AnalysisError

if TYPE_CHECKING:
    from rich.console import Console

    from analysis.baseline import Change


def main(argv: Sequence[str]) -> int:
    """The exit code: 0 written, 1 written and fallen below the baseline, 2 nothing to write or wrong usage."""
    options = parser().parse_args(argv)
    try:
        return write(options)
    except (AnalysisError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def write(options: argparse.Namespace) -> int:
    """Writes and prints everything. Raises AnalysisError."""
    from rich.console import Console

    from analysis.baseline import changes, regressed
    from analysis.leaderboard import publish

    if options.out is None and len(options.runs) > 1:
        raise AnalysisError("several run folders: say with -o where the tables of all of them go")
    published = publish(options.runs, options.out or options.runs[0], beside=options.beside, figures=options.figures)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(published.table, crop=False)
    console.print("\n".join(map(str, published.files)), markup=False, highlight=False, soft_wrap=True)
    if options.baseline is None:
        return 0
    found = changes(published.rows, options.baseline)
    show_changes(console, found)
    return int(regressed(found))


def show_changes(console: "Console", found: "Sequence[Change]") -> None:
    """Prints what became of the rows of the baseline."""
    for one in found:
        now = "no number" if one.now is None else f"{one.now:.2f}"
        p = "" if one.p is None else f" (p {one.p:.2g})"
        line = f"{one.verdict}{p}: {one.model} {one.pruning} [{one.key}]: top-1 {one.before:.2f} -> {now}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m analysis", description="Leaderboards and a report out of the records of run folders.")
    made.add_argument("runs", type=Path, nargs="+", metavar="runs/<grid>", help="run folders, also copied from other machines")
    made.add_argument("-o", "--out", type=Path, help="folder to write to; default: the run folder, when there is one")
    made.add_argument("--figures", action="store_true", help="also the report's plots as SVG and PNG files")
    made.add_argument(
        "--baseline", type=Path, metavar="old.csv", help="an older leaderboard.csv: exit 1 when a row fell beyond the noise of its seeds"
    )
    made.add_argument("--beside", type=Path, metavar="results.csv", help="results in timm's format, to be laid beside ours in beside.csv")
    return made


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
