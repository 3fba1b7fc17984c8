"""The progress of a local launch: a live table in a terminal, plain lines elsewhere."""

import sys
import time
from dataclasses import dataclass, field

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from harness.submit.local import LocalQueue, current_stage
from harness.text import duration
from jobs.experiment.ids import CellId, StageId
from jobs.experiment.index import stage_entry
from jobs.experiment.job import PlannedCell
from jobs.experiment.output import FittedTable, printable
from jobs.experiment.progress import read_progress
from jobs.experiment.run_folder import RunFolder
from jobs.experiment.specs import StageSpec

LINE_EVERY_S = 30.0  # between progress lines where there is no terminal


@dataclass
class ProgressDisplay:
    """Shows a queue at work. Call it with the queue as often as you like: it prints only what is new."""

    run: RunFolder
    cells: tuple[PlannedCell, ...]
    console: Console = field(default_factory=Console)
    started: float = field(default_factory=time.monotonic)
    reported: set[CellId] = field(default_factory=set)  # cells whose end has been printed
    deaths: dict[StageId, int] = field(default_factory=dict)  # those that have been printed
    last_line: float = 0.0
    live: Live | None = None

    def __enter__(self) -> "ProgressDisplay":
        self.reported = {planned.cell.id for planned in self.cells if self.run.record_path(planned.cell.id).exists()}
        if self.console.is_terminal:
            self.live = Live(console=self.console, refresh_per_second=4, transient=True).__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self.live:
            self.live.__exit__(None, None, None)
        self.print_ended_cells()

    def __call__(self, queue: LocalQueue) -> None:
        """Prints cells that have ended and jobs that have died, then shows the stages at work."""
        self.print_ended_cells()
        self.print_deaths(queue)
        if self.live:
            self.live.update(self.table(queue))
        elif time.monotonic() - self.last_line >= LINE_EVERY_S:
            self.last_line = time.monotonic()
            for row in self.rows(queue):
                self.print_line("   ".join(row))
            sys.stdout.flush()

    def print_line(self, text: str, style: str | None = None) -> None:
        """Prints a line as it is, however long."""
        self.console.print(printable(text), style=style, markup=False, highlight=False, soft_wrap=True)

    def print_ended_cells(self) -> None:
        """Prints a line for every cell that has ended since the last call."""
        for planned in self.cells:
            if planned.cell.id in self.reported or (record := self.run.readable_record(planned.cell.id)) is None:
                continue
            self.reported.add(planned.cell.id)
            title = f"{len(self.reported)}/{len(self.cells)}  {record.id}  {planned.cell.model.label}  {planned.cell.pruning}  seed {record.seed}"
            if record.metrics:
                self.print_line(f"{title}  top-1 {record.metrics.top1:.2f}%")
            elif record.failure:
                file = self.run.failure_path(record.failure.stage)
                self.print_line(f"{title}  FAILED: {record.failure.kind}: {record.failure.message} ({file})", style="red")

    def print_deaths(self, queue: LocalQueue) -> None:
        """Prints a line for every job that has died since the last call and whose stage goes on."""
        for stage, count in queue.deaths.items():
            if count > self.deaths.get(stage, 0) and self.run.failure(stage) is None:
                text = f"a job died without an error; stage {stage} goes on from its last checkpoint (logs: {self.run.jobs_dir})"
                self.print_line(text, style="yellow")
        self.deaths = dict(queue.deaths)

    def rows(self, queue: LocalQueue) -> list[tuple[str, ...]]:
        """Stage, epoch, loss, images/s and time left of every running job."""
        current = (current_stage(self.run, queued.job) for _, queued in sorted(queue.running.items()))
        return [(stage_entry(spec).title, *progress_of(self.run, spec)) for spec in current if spec is not None]

    def table(self, queue: LocalQueue) -> Group:
        """The live display."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("stage", "epoch", "loss", "images/s", "left"):
            table.add_column(column, justify="left" if column == "stage" else "right")
        for row in self.rows(queue):
            table.add_row(*map(Text, row))
        waiting = sum(len(queued.job.stages) for queued in queue.waiting)
        counts = f"{len(self.reported)}/{len(self.cells)} cells, {waiting} stages waiting, {duration(time.monotonic() - self.started)}"
        footer = f"{counts}   Ctrl-C stops; the same command resumes"
        return Group(FittedTable(table=table), Text(footer, style="dim"))


def progress_of(run: RunFolder, spec: StageSpec) -> tuple[str, str, str, str]:
    """Epoch, loss, images/s and time left, as the stage last reported them."""
    progress = read_progress(run.stage_dir(spec.id))
    if progress is None or progress.loss is None or progress.img_per_s is None or progress.eta_s is None:
        return "starting" if not run.done(spec.id) else "measuring", "", "", ""
    return f"{progress.epoch}/{progress.epochs}", f"{progress.loss:.3f}", f"{progress.img_per_s:.0f}", duration(progress.eta_s)
