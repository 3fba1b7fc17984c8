"""python -m harness.verify <cell> [--seeds K]: runs a recorded cell again here, and judges it against the band of its seeds: pass, drift or fail.

Exit codes: 0: pass; 1: fail; 2: usage, or it could not run here; 3: drift, that is, not decided; 130: interrupted.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from math import isfinite
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.review.again import NotRecordedError, NotRunError, find
from harness.review.equivalence import MARGIN
from harness.review.verdict import Rerun, expectation, judged
from harness.review.verified_runs import Subject, keep, runs_of, seeds_to_run, tidy, unfinished
from harness.text import no_current_folder
from jobs.cluster.claims import claimed, holder
from jobs.cluster.surroundings import forget_outer_job
from jobs.experiment.collector import collect_rarely
from jobs.experiment.output import FittedTable, printable, replace_unencodable, tells_lost_output
from jobs.experiment.records import RecordError
from jobs.experiment.run_folder import RUNS, RunFolder
from jobs.experiment.verification import Difference, RunAgain, Verdict, Verification, verified_dir
from jobs.worker.code_copy import code_id, described

PASSED, FAILED, USAGE, DRIFTED, INTERRUPTED = 0, 1, 2, 3, 130
CODES: dict[Verdict, int] = {"pass": PASSED, "fail": FAILED, "drift": DRIFTED}
COLOURS: dict[Verdict, str] = {"pass": "bold green", "fail": "bold red", "drift": "bold yellow"}


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
        return verify(Subject(run=RunFolder(path.parents[2]), path=path, record=record), options)
    except (NotRecordedError, NotRunError, RecordError) as error:
        print(printable(str(error), keep="\n"), file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m harness.verify", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("cell", help="the id of a cell, or its beginning if no other id begins so")
    parser.add_argument("--seeds", type=at_least_one, default=1, metavar="K", help="run K seeds: the cell's own, then its row's, then new ones")
    parser.add_argument("--margin", type=positive, default=MARGIN, help="points of top-1 that count as equivalent (default: %(default)s)")
    parser.add_argument("--code", choices=("recorded", "here"), default="recorded", help="the run folder's copy of the code, if any, or this code")
    parser.add_argument("--by", metavar="NAME", help="a name to keep with the result; without it no person and no machine is named")
    parser.add_argument("--runs", type=Path, default=RUNS, help="the folder of all run folders (default: %(default)s)")
    return parser.parse_args(arguments)


def at_least_one(text: str) -> int:
    """A number of seeds."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number} seeds are none; give 1 or more")
    return number


def positive(text: str) -> float:
    """A margin."""
    number = float(text)
    if not (isfinite(number) and number > 0):
        raise argparse.ArgumentTypeError(f"{text} is no margin; give points of top-1 above 0, such as 0.5")
    return number


def verify(subject: Subject, options: argparse.Namespace) -> int:
    """Runs the cell again, judges, prints and keeps the result; returns the exit code. Raises NotRunError and RecordError."""
    record, copy = subject.record, subject.copy() if options.code == "recorded" else None
    say(f"cell {record.id}: {record.model}, {record.pruning}, seed {record.seed}, recorded in {subject.path}")
    say(code_sentence(subject, copy))
    row = subject.row()
    seeds = seeds_to_run(record.seed, row, options.seeds)
    parent = writable(verified_dir(subject.run.path, record.id))
    with claimed(parent / "lock", wait=False) as alone:
        if not alone:
            raise NotRunError(f"{holder(parent / 'lock')} is verifying this cell; wait until it has ended")
        for path in tidy(parent):
            say(f"a verification that was killed at its end is kept in {path}")
        folder = unfinished(parent, subject, copy)
        runs = list(runs_of(subject, seeds, folder, copy, say))
        code_of_record = record.environment.code is not None and runs[0].environment.code == record.environment.code
        verification = judged(Rerun(record=record, row=row, runs=runs, margin=options.margin), code_of_record=code_of_record, by=options.by)
        path = keep(folder, verification)
    show(verification)
    say(f"kept in {path}")
    return CODES[verification.verdict]


def say(text: str) -> None:
    """Prints a line."""
    print(printable(text), flush=True)


def code_sentence(subject: Subject, copy: Path | None) -> str:
    """Which code runs, and why."""
    recorded = subject.record.environment.code
    if copy is not None:
        return f"with the code of the recorded run ({described(copy)}), from its copy {copy}, which runs as you; --code here takes the code here"
    if recorded == code_id():
        return "with the code here, which is that of the recorded run"
    if recorded is None:
        return "with the code here: the record does not say which code it ran"
    kept = (subject.run.code_dir / recorded).is_dir() if recorded.isalnum() else False
    return f"with the code here, not that of the recorded run ({printable(recorded)})" + ("" if kept else ", of which the run folder has no copy")


def writable(folder: Path) -> Path:
    """`folder`, or a temporary one where it cannot be written (another user's run folder)."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        other = Path(tempfile.mkdtemp(prefix="verify-"))
        say(f"{folder} cannot be written ({error.strerror}): the result goes to {other}, and a report shows it once you copy it there")
        return other


def show(verification: Verification) -> None:
    """Prints what differs, the runs, and the verdict."""
    console = Console()
    console.print(differences_table(verification.differences) if verification.differences else "config, code, versions, hardware and data: the same")
    console.print(runs_table(verification.runs))
    if drawn := sum(not run.same_weights for run in verification.runs):
        console.print(expectation(verification.recorded, drawn), style="dim", highlight=False)
    verdict = verification.verdict
    first, *rest = verification.reasons
    console.print(Text(printable(f"{verdict}: {first}"), style=COLOURS[verdict]))
    for reason in rest:
        console.print(Text(printable(f"  {reason}")))


def differences_table(differences: Sequence[Difference]) -> FittedTable:
    """What is not the same in the record and here."""
    table = Table(box=None, header_style="bold")
    for column in ("differs", "", "recorded", "here"):
        table.add_column(column)
    for line in differences:
        table.add_row(*(Text(printable(text)) for text in (line.part, line.name, line.recorded, line.here)))
    return FittedTable(table=table, names=(0, 1))


def runs_table(runs: Sequence[RunAgain]) -> FittedTable:
    """Every run beside the record of its seed."""
    table = Table(box=None, header_style="bold")
    for column in ("seed", "top-1 recorded", "top-1 here", "weights"):
        table.add_column(column, justify="left" if column == "weights" else "right")
    words = {True: "the same, bit for bit", False: "others", None: "nothing recorded to compare with"}
    for run in runs:
        recorded = "" if run.recorded_top1 is None else f"{run.recorded_top1:.2f}"
        table.add_row(str(run.seed), recorded, f"{run.top1:.2f}", words[run.same_weights])
    return FittedTable(table=table)


if __name__ == "__main__":
    sys.exit(main())
