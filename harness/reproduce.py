"""python -m harness.reproduce <cell>: runs a recorded cell again, in this process on this machine, and compares.

Exit codes: 0: reproduced; 1: something differs; 2: usage.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.review.again import EXACT, SAME_MACHINE, NotRecordedError, find, folder_for, machine, protocol_note, run_again, unequal
from harness.text import no_current_folder
from jobs.cluster.surroundings import forget_outer_job
from jobs.experiment.collector import collect_rarely
from jobs.experiment.output import FittedTable, printable, replace_unencodable, tells_lost_output
from jobs.experiment.plugins import load_copies
from jobs.experiment.records import Record, RecordError
from jobs.experiment.run_folder import REPRODUCTIONS, RUNS, RunFolder
from models.plugins.content import PluginError

REPRODUCED, DIFFERS, USAGE = 0, 1, 2
TOP1_TOLERANCE = 1.0  # percentage points, between machines: kernels round differently, and training amplifies it


@tells_lost_output(USAGE)
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    replace_unencodable()
    collect_rarely()
    forget_outer_job()
    if problem := no_current_folder():
        print(problem, file=sys.stderr)
        return USAGE
    options = parse(arguments)
    try:
        path, record = find(options.runs, options.cell)
        load_copies(RunFolder(path.parents[2]), record.spec)
    except (NotRecordedError, RecordError, PluginError) as error:
        print(error, file=sys.stderr)
        return USAGE
    print(printable(f"cell {record.id}: {record.model}, {record.pruning}, seed {record.seed}, recorded in {path}"), flush=True)
    if note := protocol_note(record):
        print(note, flush=True)
    repeated = run_again(record, folder_for(path.parents[2] / REPRODUCTIONS))
    verdict = compare(record, repeated)
    show(record, repeated, verdict)
    return REPRODUCED if verdict.reproduced else DIFFERS


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m harness.reproduce", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("cell", help="the id of a cell, or its beginning if no other id begins so")
    parser.add_argument("--runs", type=Path, default=RUNS, help="the folder of all run folders (default: %(default)s)")
    return parser.parse_args(arguments)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How a second run compares with the first."""

    same_machine: bool
    same_weights: bool
    differing: tuple[str, ...]  # metrics that are not equal
    within_tolerance: bool

    @property
    def reproduced(self) -> bool:
        """Equal to the bit on the same machine; within the tolerance elsewhere."""
        return (self.same_weights and not self.differing) if self.same_machine else self.within_tolerance


def compare(first: Record, second: Record) -> Verdict:
    """The verdict on two records of one cell. A failed second run reproduces nothing."""
    same_machine = machine(first.environment) == machine(second.environment)
    if first.metrics is None or second.metrics is None:
        return Verdict(same_machine=same_machine, same_weights=False, differing=("status",), within_tolerance=False)
    close = abs(first.metrics.top1 - second.metrics.top1) <= TOP1_TOLERANCE and first.metrics.params == second.metrics.params
    same_weights = first.weights_sha256 == second.weights_sha256
    return Verdict(same_machine=same_machine, same_weights=same_weights, differing=unequal(first, second), within_tolerance=close)


def show(first: Record, second: Record, verdict: Verdict) -> None:
    """Prints both runs side by side, and the verdict."""
    console = Console()
    table = Table(box=None, header_style="bold")
    for column in ("", "recorded", "now", ""):
        table.add_column(column)
    for name in EXACT:
        values = [getattr(record.metrics, name, None) for record in (first, second)]
        table.add_row(name, *(Text(printable(str(value))) for value in values), "" if values[0] == values[1] else "differs")
    table.add_row("weights", *(str(record.weights_sha256)[:12] for record in (first, second)), "" if verdict.same_weights else "differs")
    for name in ("commit", *SAME_MACHINE):
        texts = [str(getattr(record.environment, name)) for record in (first, second)]
        if texts[0] != texts[1]:
            table.add_row(name, *(Text(printable(text)) for text in texts), "differs")
    console.print(FittedTable(table=table))
    if verdict.reproduced:
        how = "equal to the bit" if verdict.same_weights else f"on another machine or with other ranks, top-1 within {TOP1_TOLERANCE} points"
        console.print(f"reproduced: {how}", style="bold green")
    else:
        reason = second.failure.message if second.failure else ", ".join((*verdict.differing, *([] if verdict.same_weights else ["weights"])))
        console.print(printable(f"NOT reproduced: {reason}", keep="\n"), style="bold red", markup=False)


if __name__ == "__main__":
    sys.exit(main())
