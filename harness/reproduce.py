"""python -m harness.reproduce <cell>: runs a recorded cell again, in this process on this machine, and compares.

Exit codes: 0: reproduced; 1: something differs; 2: usage.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.plan.stages import make_graph
from harness.submit.local import fresh_folder
from harness.text import no_current_folder, shortened
from jobs.cluster.surroundings import forget_outer_job
from jobs.data.prepare import prepare
from jobs.experiment.cell import Cell
from jobs.experiment.collector import collect_rarely
from jobs.experiment.identity import PROTOCOL
from jobs.experiment.job import JobSpec, PlannedCell
from jobs.experiment.output import FittedTable, printable, replace_unencodable
from jobs.experiment.plugins import load_copies
from jobs.experiment.records import Environment, Record, RecordError, read_record
from jobs.experiment.run_folder import CELLS, RECORD, REPRODUCTIONS, RUNS, RunFolder
from jobs.experiment.specs import ClusterSpec
from jobs.recovery.micro_batch import store_micro_batch
from jobs.worker.job import run_job
from models.plugins.content import PluginError

REPRODUCED, DIFFERS, USAGE = 0, 1, 2
TOP1_TOLERANCE = 1.0  # percentage points, between machines: kernels round differently, and training amplifies it
EXACT = ("top1", "top5", "test_loss", "test_samples", "val_top1", "train_loss", "params", "params_nonzero", "sparsity_prunable", "macs", "epochs")
SAME_MACHINE = ("cpu", "gpu", "ranks", "threads", "scan", "loader", "versions", "python")


class ReproduceError(ValueError):
    """No record fits the given id; the message lists ids that exist."""


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
    except (ReproduceError, RecordError, PluginError) as error:
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


def find(runs: Path, prefix: str) -> tuple[Path, Record]:
    """The finished record of the cell whose id begins so. Raises ReproduceError for no cell, for several, and for a failed cell."""
    paths = sorted(runs.glob(f"*/{CELLS}/{prefix}*/{RECORD}")) if prefix.isalnum() else []
    ids = sorted({path.parent.name for path in paths})
    if not ids:
        known = sorted(path.parent.name for path in runs.glob(f"*/{CELLS}/*/{RECORD}"))
        hint = f"these have records: {shortened(known, 8)}" if known else f"there are no records under {runs}; launch a grid first"
        raise ReproduceError(f"no cell '{prefix}'; {hint}")
    if len(ids) > 1:
        raise ReproduceError(f"several cells begin with '{prefix}': {', '.join(ids)}; give more letters")
    records = readable(paths)
    path, record = next(((path, record) for path, record in records if record.status == "done"), records[0])
    if record.status != "done":
        raise ReproduceError(f"cell {record.id} has no numbers to reproduce: it failed ({record.failure.kind if record.failure else 'unknown'})")
    return path, record


def readable(paths: Sequence[Path]) -> list[tuple[Path, Record]]:
    """The records that can be read, with their paths; at least one. Raises RecordError if there are none."""
    records, error = [], None
    for path in paths:
        try:
            records.append((path, read_record(path)))
        except RecordError as unreadable:
            error = unreadable
    if error is not None and not records:
        raise error
    return records


def protocol_note(record: Record) -> str:
    """That this version trains such a recipe by another protocol than the recorded run, so that the numbers will differ; empty where it does not."""
    now, then = (spec["recipe"].get(PROTOCOL) for spec in (Cell.from_json(record.spec).to_json(), record.spec))
    return (
        ""
        if now == then
        else f"note: this version trains by another protocol ({now}; recorded: {then or 'that of versions up to 0.2'}): numbers will differ"
    )


def folder_for(parent: Path) -> Path:
    """A new folder for the second run: in `parent`, or a temporary one where `parent` cannot be written (another user's run folder)."""
    try:
        return fresh_folder(parent)
    except OSError:
        return Path(tempfile.mkdtemp(prefix="reproduce-"))


def run_again(record: Record, folder: Path) -> Record:
    """The record of a second run of every stage of the cell, in `folder`, with the threads of the first run and one rank."""
    cell = Cell.from_json(record.spec)
    graph = make_graph((cell,))
    cluster = ClusterSpec(kind="debug", cpus_per_task=record.environment.threads)
    prepare(cell.data, Path(cluster.cache))
    planned = PlannedCell(cell=cell, stages=graph.paths[cell.id])
    for stage, micro_batch in (record.metrics.micro_batches if record.metrics else {}).items():
        store_micro_batch(RunFolder(folder).stage_dir(stage), micro_batch, "the recorded run ran out of memory with more")
    run_job(JobSpec(run=str(folder), grid=record.grid, stages=tuple(graph.stages.values()), cells=(planned,), cluster=cluster))
    return read_record(RunFolder(folder).record_path(cell.id))


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
    differing = tuple(name for name in EXACT if getattr(first.metrics, name) != getattr(second.metrics, name))
    close = abs(first.metrics.top1 - second.metrics.top1) <= TOP1_TOLERANCE and first.metrics.params == second.metrics.params
    same_weights = first.weights_sha256 == second.weights_sha256
    return Verdict(same_machine=same_machine, same_weights=same_weights, differing=differing, within_tolerance=close)


def machine(environment: Environment) -> dict[str, object]:
    """The part of an environment that must be equal for two runs to be equal to the bit."""
    return {name: getattr(environment, name) for name in SAME_MACHINE}


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
