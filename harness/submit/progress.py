"""Progress of a local launch: a live table in a terminal, a line an event elsewhere."""

import sys
import time
from dataclasses import dataclass, field

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from harness.submit.local import LocalQueue, complete
from harness.text import duration
from jobs.experiment.index import stage_entry
from jobs.experiment.job import JobSpec, PlannedCell
from jobs.experiment.progress import read_progress
from jobs.experiment.run_folder import FAILURE, RunFolder
from jobs.experiment.specs import StageSpec

LINE_EVERY_S = 30.0  # between progress lines where there is no terminal


@dataclass
class Watch:
    """Shows a queue at work. Call it with the queue as often as you like; it redraws when there is something new."""

    run: RunFolder
    cells: tuple[PlannedCell, ...]
    console: Console = field(default_factory=Console)
    started: float = field(default_factory=time.monotonic)
    told: set[str] = field(default_factory=set)  # cells whose end has been printed
    deaths: dict[str, int] = field(default_factory=dict)  # by stage, that have been printed
    last_line: float = 0.0
    live: Live | None = None

    def __enter__(self) -> "Watch":
        self.told = {path.cell.id for path in self.cells if self.run.record_path(path.cell.id).exists()}
        if self.console.is_terminal:
            self.live = Live(console=self.console, refresh_per_second=4, transient=True).__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self.live:
            self.live.__exit__(None, None, None)
        self.tell_ended_cells()

    def __call__(self, queue: LocalQueue) -> None:
        """Prints cells that have ended and jobs that have died, then shows the stages at work."""
        self.tell_ended_cells()
        self.tell_deaths(queue)
        if self.live:
            self.live.update(self.table(queue))
        elif time.monotonic() - self.last_line >= LINE_EVERY_S:
            self.last_line = time.monotonic()
            for text in self.lines(queue):
                self.console.print(text, markup=False, highlight=False, soft_wrap=True)
            sys.stdout.flush()

    def tell_ended_cells(self) -> None:
        """One line for every cell that has ended since the last call."""
        for path in self.cells:
            if path.cell.id in self.told or (record := self.run.record(path.cell.id)) is None:
                continue
            self.told.add(path.cell.id)
            what = f"{len(self.told)}/{len(self.cells)}  {record.id}  {record.model}  {record.pruning}  seed {record.seed}"
            if record.metrics:
                self.console.print(f"{what}  top-1 {record.metrics.top1:.2f}%", markup=False, highlight=False, soft_wrap=True)
            elif record.failure:
                where = self.run.stage_dir(record.failure.stage) / FAILURE
                text = f"{what}  FAILED: {record.failure.kind}: {record.failure.message} ({where})"
                self.console.print(text, markup=False, style="red", highlight=False, soft_wrap=True)

    def tell_deaths(self, queue: LocalQueue) -> None:
        """One line for every job that has died since the last call and whose stage goes on."""
        for stage, count in queue.deaths.items():
            if count > self.deaths.get(stage, 0) and self.run.failure(stage) is None:
                text = f"a job died without an error; stage {stage} goes on from its last checkpoint (logs: {self.run.path / 'jobs'})"
                self.console.print(text, markup=False, style="yellow", highlight=False, soft_wrap=True)
        self.deaths = dict(queue.deaths)

    def lines(self, queue: LocalQueue) -> list[str]:
        """What each slot is doing, one line a slot."""
        return ["   ".join(row) for row in self.rows(queue)]

    def rows(self, queue: LocalQueue) -> list[tuple[str, ...]]:
        """Stage, epoch, loss, images/s and time left of every running job."""
        rows = []
        for _, entry in sorted(queue.running.items()):
            spec = current(self.run, entry.order)
            if spec is None:
                continue
            rows.append((stage_entry(spec).title, *progress_cells(self.run, spec)))
        return rows

    def table(self, queue: LocalQueue) -> Group:
        """The live display."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("stage", "epoch", "loss", "images/s", "left"):
            table.add_column(column, justify="left" if column == "stage" else "right")
        for row in self.rows(queue):
            table.add_row(*row)
        waiting = sum(len(entry.order.stages) for entry in queue.waiting)
        counts = f"{len(self.told)}/{len(self.cells)} cells, {waiting} stages waiting, {duration(time.monotonic() - self.started)}"
        footer = f"{counts}   Ctrl-C stops, the same command goes on"
        return Group(table, Text(footer, style="dim"))


def current(run: RunFolder, order: JobSpec) -> StageSpec | None:
    """The stage that an order's job is at."""
    return next((spec for spec in order.stages if not complete(run, order, spec.id)), None)


def progress_cells(run: RunFolder, spec: StageSpec) -> tuple[str, str, str, str]:
    """Epoch, loss, images/s and time left, from the stage's own heartbeat."""
    progress = read_progress(run.stage_dir(spec.id))
    if progress is None or progress.loss is None or progress.img_per_s is None or progress.eta_s is None:
        return "starting" if not run.done(spec.id) else "measuring", "", "", ""
    return f"{progress.epoch}/{progress.epochs}", f"{progress.loss:.3f}", f"{progress.img_per_s:.0f}", duration(progress.eta_s)
