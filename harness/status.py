"""python -m harness.status [grid.yaml | run folder] [--watch | --json]: shows the cells of a grid by state, and its failures.

Without a name: the launch at work now, else the latest one. Exit codes: 0: status shown; 2: no such run. Those of --json: 0: all cells are done;
1: some have failed; 2: no such run; 3: something runs or waits; 4: cells are open, and no job has them; 5: SLURM does not answer.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from harness.monitor.lookup import NameNotFound, find_run, launched
from harness.monitor.memory import ASK_EVERY_S, Memory
from harness.monitor.run_status import Observer
from harness.monitor.status_json import Result, result_of, status_json
from harness.monitor.status_view import page
from harness.monitor.watching import SCREEN_S, watch
from harness.text import shortened
from jobs.experiment.files import json_text
from jobs.experiment.index import RunIndexError
from jobs.experiment.output import printable, replace_unencodable, tells_lost_output
from jobs.experiment.run_folder import RUNS, RunFolder

OK, USAGE = 0, 2
CODES: Mapping[Result, int] = {"done": 0, "failed": 1, "under way": 3, "open": 4, "unknown": 5}  # of --json
NAMED = 4  # other runs that a line names
WIDTH = 200  # of the output to a file or a pipe


@tells_lost_output(USAGE)
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    replace_unencodable()
    options = parse(arguments)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    try:
        run = find_run(options.grid, options.runs)
        if options.json:
            return print_json(run)
        shown = watch(Observer(run, Memory()), console) if options.watch else Observer(run).look()
        if shown is not None and (console.is_terminal or not options.watch):
            console.print(page(shown))
        if options.grid is None and (others := [folder.name for folder in launched(options.runs) if folder != run.path]):
            names = printable(shortened(others, NAMED))
            console.print(Text(f"other runs under {options.runs}: {names}; python -m harness.status <name> shows one", style="dim"))
    except (NameNotFound, RunIndexError) as error:
        print(error, file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        pass
    return OK


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m harness.status", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("grid", nargs="?", help="a grid.yaml or a run folder (default: the launch at work now, else the latest one)")
    often = f"files are read every {SCREEN_S:.0f} s, SLURM is asked every {ASK_EVERY_S:.0f} s"
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--watch", action="store_true", help=f"stay on the screen until Ctrl-C, or until no job is left; {often}")
    forms.add_argument("--json", action="store_true", help="print the status for scripts, and end with a code that says how the run stands")
    parser.add_argument("--runs", type=Path, default=RUNS, help="the folder of all run folders (default: %(default)s)")
    return parser.parse_args(arguments)


def print_json(run: RunFolder) -> int:
    """Prints the status for scripts; returns its exit code."""
    status = Observer(run).look()
    print(json_text(status_json(status).to_json(), indent=1))
    return CODES[result_of(status)]


if __name__ == "__main__":
    sys.exit(main())
