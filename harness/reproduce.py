"""python -m harness.reproduce <cell id>: runs one recorded cell again, in this process on this machine, and compares.

Exit codes: 0 reproduced, 1 something differs, 2 usage.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from harness.plan.stages import make_graph
from harness.submit.local import fresh_folder
from jobs.experiment.cell import Cell
from jobs.experiment.job import JobSpec, PlannedCell
from jobs.experiment.records import Environment, Record, RecordError, read_record
from jobs.experiment.run_folder import REPRODUCTIONS, RUNS, RunFolder
from jobs.experiment.specs import ClusterSpec
from jobs.recovery.micro_batch import keep
from jobs.worker.job import run_job

TOP1_TOLERANCE = 1.0  # percentage points, between machines: kernels round differently, and training amplifies it
EXACT = ("top1", "top5", "test_loss", "test_samples", "val_top1", "train_loss", "params", "params_nonzero", "sparsity_prunable", "macs", "epochs")
SAME_MACHINE = ("cpu", "gpu", "ranks", "threads", "scan", "loader", "versions", "python")


class ReproduceError(ValueError):
    """No record fits what was asked; the message says which do."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    options = parse(arguments)
    try:
        path, record = find(options.runs, options.cell)
    except (ReproduceError, RecordError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"cell {record.id}: {record.model}, {record.pruning}, seed {record.seed}, recorded in {path}", flush=True)
    again = run_again(record, place_for(path.parents[2] / REPRODUCTIONS))
    verdict = compare(record, again)
    show(record, again, verdict)
    return 0 if verdict.reproduced else 1


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m harness.reproduce", description=__doc__.splitlines()[0])
    parser.add_argument("cell", help="a cell id, or a beginning of it that only one cell has")
    parser.add_argument("--runs", type=Path, default=RUNS, help="where run folders are kept (default: %(default)s)")
    return parser.parse_args(arguments)


def find(runs: Path, prefix: str) -> tuple[Path, Record]:
    """The one finished record whose id begins so. Raises ReproduceError naming the candidates otherwise."""
    paths = sorted(runs.glob(f"*/cells/{prefix}*/record.json")) if prefix.isalnum() else []
    if not paths:
        known = sorted(path.parent.name for path in runs.glob("*/cells/*/record.json"))
        hint = (
            f"there are {', '.join(known[:8])}{' ...' if len(known) > 8 else ''}"
            if known
            else f"there are no records under {runs}: launch a grid first"
        )
        raise ReproduceError(f"no cell '{prefix}'; {hint}")
    if len({path.parent.name for path in paths}) > 1:
        raise ReproduceError(f"'{prefix}' begins several cells: {', '.join(path.parent.name for path in paths)}; give more letters")
    found = [(path, read_record(path)) for path in paths]
    path, record = next(((path, record) for path, record in found if record.status == "done"), found[0])
    if record.status != "done":
        raise ReproduceError(f"cell {record.id} has no numbers to reproduce: it failed ({record.failure.kind if record.failure else 'unknown'})")
    return path, record


def place_for(wanted: Path) -> Path:
    """A new folder for the second run; elsewhere when the first run's folder cannot be written, as a copy of somebody else's cannot."""
    try:
        return fresh_folder(wanted)
    except OSError:
        return Path(tempfile.mkdtemp(prefix="reproduce-"))


def run_again(record: Record, folder: Path) -> Record:
    """The record of a second run of every stage of the cell, in `folder`, with the threads of the first and one rank."""
    cell = Cell.from_json(record.spec)
    plan = make_graph((cell,))
    cluster = ClusterSpec(kind="debug", cpus_per_task=record.environment.threads)
    path = PlannedCell(cell=cell, stages=plan.paths[cell.id])
    for stage, micro in (record.metrics.micro_batches if record.metrics else {}).items():
        keep(RunFolder(folder).stage_dir(stage), micro, "the recorded run had no memory for more")
    run_job(JobSpec(run=str(folder), grid=record.grid, stages=tuple(plan.stages.values()), cells=(path,), cluster=cluster))
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


def compare(old: Record, new: Record) -> Verdict:
    """The verdict on two records of one cell. A failed second run reproduces nothing."""
    same_machine = machine(old.environment) == machine(new.environment)
    if old.metrics is None or new.metrics is None:
        return Verdict(same_machine=same_machine, same_weights=False, differing=("status",), within_tolerance=False)
    differing = tuple(name for name in EXACT if getattr(old.metrics, name) != getattr(new.metrics, name))
    close = abs(old.metrics.top1 - new.metrics.top1) <= TOP1_TOLERANCE and old.metrics.params == new.metrics.params
    return Verdict(same_machine=same_machine, same_weights=old.weights_sha256 == new.weights_sha256, differing=differing, within_tolerance=close)


def machine(environment: Environment) -> dict[str, object]:
    """What must be equal for two runs to be equal to the bit."""
    return {name: getattr(environment, name) for name in SAME_MACHINE}


def show(old: Record, new: Record, verdict: Verdict) -> None:
    """Prints both runs side by side and the verdict."""
    console = Console()
    table = Table(box=None, header_style="bold")
    for column in ("", "recorded", "now", ""):
        table.add_column(column)
    for name in EXACT:
        values = [getattr(record.metrics, name, None) for record in (old, new)]
        table.add_row(name, *map(str, values), "" if values[0] == values[1] else "differs")
    table.add_row("weights", *(str(record.weights_sha256)[:12] for record in (old, new)), "" if verdict.same_weights else "differs")
    for name in ("commit", *SAME_MACHINE):
        values = [str(getattr(record.environment, name)) for record in (old, new)]
        if values[0] != values[1]:
            table.add_row(name, *values, "differs")
    console.print(table)
    if verdict.reproduced:
        how = "equal to the bit" if verdict.same_weights else f"another machine or rank count: top-1 within {TOP1_TOLERANCE} points"
        console.print(f"reproduced: {how}", style="bold green")
    else:
        reason = new.failure.message if new.failure else ", ".join((*verdict.differing, *([] if verdict.same_weights else ["weights"])))
        console.print(f"NOT reproduced: {reason}", style="bold red", markup=False)


if __name__ == "__main__":
    sys.exit(main())
