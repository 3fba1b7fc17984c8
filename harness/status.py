"""python -m harness.status [grid.yaml | run folder] [--watch]: shows the cells of a grid by state, and its failures.

Without a name: the launch at work now, else the latest one. Exit codes: 0: status shown; 2: no such run.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from harness.monitor.lookup import NameNotFound, find_run, launched
from harness.monitor.status_view import StatusView
from harness.text import shortened
from jobs.experiment.index import RunIndexError
from jobs.experiment.output import lost_output, printable, replace_unencodable
from jobs.experiment.run_folder import RUNS, RunFolder

OK, USAGE = 0, 2
WATCH_S = 5.0
NAMED = 4  # other runs that a line names
WIDTH = 200  # of the output to a file or a pipe


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    replace_unencodable()
    options = parse(arguments)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    try:
        run = find_run(options.grid, options.runs)
        if options.watch:
            watch(run, console)
        else:
            console.print(StatusView(run).look())
        if options.grid is None and (others := [folder.name for folder in launched(options.runs) if folder != run.path]):
            names = printable(shortened(others, NAMED))
            console.print(Text(f"other runs under {options.runs}: {names}; python -m harness.status <name> shows one", style="dim"))
    except (NameNotFound, RunIndexError) as error:
        print(error, file=sys.stderr)
        return USAGE
    except OSError as error:
        if (lost := lost_output(error)) is None:
            raise
        print(lost, file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        pass
    return OK


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m harness.status", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("grid", nargs="?", help="a grid.yaml or a run folder (default: the launch at work now, else the latest one)")
    parser.add_argument("--watch", action="store_true", help=f"show the status again every {WATCH_S:.0f} s, until Ctrl-C or no job is left")
    parser.add_argument("--runs", type=Path, default=RUNS, help="the folder of all run folders (default: %(default)s)")
    return parser.parse_args(arguments)


def watch(run: RunFolder, console: Console) -> None:
    """Shows the status until nothing runs or waits. A terminal shows it in place; other output gets one status below the other."""
    view = StatusView(run)
    with Live(console=console, auto_refresh=False, vertical_overflow="visible") if console.is_terminal else nullcontext() as live:
        while True:
            shown = view.look()
            if live:
                live.update(shown, refresh=True)
            else:
                console.print(shown)
            if not view.under_way:
                return
            time.sleep(WATCH_S)


if __name__ == "__main__":
    sys.exit(main())
