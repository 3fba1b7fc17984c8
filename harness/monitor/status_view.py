"""The status of a run as a terminal shows it: counts, hours, the stages at work, incidents, and what to do next."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.monitor.budget import budget_notes
from harness.monitor.data_sets import data_notes
from harness.monitor.incidents import IncidentGroup, nodes_of, remedy
from harness.monitor.model_bars import ModelBars
from harness.monitor.proposals import proposals
from harness.monitor.run_status import RunStatus
from harness.monitor.survey import STATES, State, Survey, heard_s
from harness.monitor.trials import trial_notes
from harness.monitor.waiting import waiting_note
from harness.text import clock_time, counted, duration, shortened, time_spent
from jobs.experiment.ids import StageId
from jobs.experiment.output import FittedTable, printable
from jobs.experiment.progress import StageProgress
from jobs.experiment.run_folder import GRID, MICRO_BATCH, RunFolder
from jobs.recovery.nodes import faults, left_out

ROWS = 20  # stages at work that are shown
GROUPS = 8  # of incidents
NAMED = 4  # stages or jobs that a line names
SILENT_S = 300.0  # a stage at work that has not written for so long is marked
COLOURS: Mapping[State, str] = {
    "done": "green",
    "running": "cyan",
    "queued": "",
    "blocked": "yellow",
    "failed": "red",
    "open": "",
    "unknown": "yellow",
}


def page(status: RunStatus) -> Group:
    """The whole status, however long."""
    parts: list[RenderableType] = [head(status), counts_table(status.counts), Text(hours(status))]
    if len(status.models) > 1 and status.under_way:
        parts += [Text(), ModelBars(models=status.models)]
    if status.at_work:
        parts += [Text(), stages_table(status.surveyed, status.at_work, status.progress)]
    parts += [line for group in status.groups[:GROUPS] for line in incident_lines(group, status.surveyed)]
    if len(status.groups) > GROUPS:
        parts.append(Text(f"and {counted(len(status.groups) - GROUPS, 'more kind')} of failure"))
    return Group(*parts, *(Text(line, style="yellow") for line in notes(status.surveyed)))


def hours(status: RunStatus) -> str:
    """Stages done, hours of training used, time left and expected end."""
    line = f"{status.stages_done} of {len(status.surveyed.index.stages)} stages done, {time_spent(status.trained_s)} of training used"
    if status.left_s is None or status.end is None:
        return line
    end = clock_time(datetime.fromtimestamp(status.end), datetime.fromtimestamp(status.time))
    return f"{line}; about {duration(status.left_s)} left with {len(status.at_work)} at a time, until {end}"


def head(status: RunStatus) -> Text:
    """Grid and folder."""
    surveyed, done = status.surveyed, status.counts.get("done", 0)
    return Text(f"{surveyed.index.grid}: {done} of {len(surveyed.states)} cells done   ({surveyed.run.path})", style="bold")


def counts_table(counts: Mapping[State, int]) -> FittedTable:
    """Cells by state; `unknown` only where there are some."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    states = [state for state in STATES if state != "unknown" or counts.get(state)]
    for state in states:
        table.add_column(state, justify="right", style=COLOURS[state] if counts.get(state) else "dim")
    table.add_row(*(str(counts.get(state, 0)) for state in states))
    return FittedTable(table=table, names=())


def stages_table(surveyed: Survey, at_work: Sequence[StageId], progress: Mapping[StageId, StageProgress]) -> FittedTable:
    """The stages at work, and how far each has come."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("stage", "", "epoch", "loss", "img/s", "left", "job", "on"):
        table.add_column(name, justify="right" if name in ("epoch", "loss", "img/s", "left") else "left", no_wrap=name != "")
    for stage in at_work[:ROWS]:
        entry, job = surveyed.index.stages[stage], surveyed.alive(stage)
        state = progress_cells(surveyed, stage, progress.get(stage))
        table.add_row(stage, Text(entry.title), *state, *((str(job.job), job.nodes) if job else ("", "")))
    if len(at_work) > ROWS:
        table.add_row(f"and {len(at_work) - ROWS} more", *[""] * 7)
    return FittedTable(table=table, names=(0, 1))


def progress_cells(surveyed: Survey, stage: StageId, progress: StageProgress | None) -> tuple[str, str, str, str]:
    """Epoch, loss, images/s and time left of a stage at work."""
    if surveyed.done(stage):
        return "measuring", "", "", ""
    if progress is None:
        return "starting", "", "", ""
    epoch, silent_s = f"{progress.epoch}/{progress.epochs}", heard_s(surveyed.run, stage)
    if silent_s > SILENT_S:
        return epoch, "", "", f"no progress for {duration(silent_s)}"
    loss, speed, left = progress.loss, progress.img_per_s, progress.eta_s
    return epoch, "" if loss is None else f"{loss:.3f}", "" if speed is None else f"{speed:.0f}", "" if left is None else duration(left)


def incident_lines(group: IncidentGroup, surveyed: Survey) -> list[Text]:
    """A group of incidents: how many cells, an excerpt of the first one's log, and how its cells go on."""
    first = group.incidents[0]
    at = f" at {group.location}" if group.location else ""
    nodes = nodes_of(group.incidents)
    title = f"\n{counted(group.cells, 'cell')}, {counted(len(group.incidents), 'stage')}: {group.kind}{at}" + (f", on {nodes}" if nodes else "")
    return [
        Text(printable(title, keep="\n"), style="bold red" if group.policy == "never" else "bold yellow"),
        *(Text(f"    {printable(line)}", style="dim") for line in first.excerpt),
        Text(f"  stage {first.stage} ({surveyed.index.stages[first.stage].title}); full log: python -m harness.logs {first.stage}"),
        Text(f"  {remedy(group, surveyed.launch_command)}"),
        *(Text(f"  {printable(line)}") for line in proposals(surveyed, group.incidents[:NAMED])),
    ]


def notes(surveyed: Survey) -> list[str]:
    """Lines about data, nodes, memory, held jobs, SLURM's silence, open cells and a changed grid, each where there is something to say."""
    lines = [
        *budget_notes(surveyed.run),
        *data_notes(surveyed.run),
        *trial_notes(surveyed),
        *node_notes(surveyed.run),
        *memory_notes(surveyed),
        *queue_notes(surveyed),
    ]
    still_open = sum(state == "open" for state in surveyed.states.values())
    if still_open:
        cells = "1 cell is open: no job has it" if still_open == 1 else f"{still_open} cells are open: no job has them"
        lines.append(f"{cells}; resume with: {surveyed.launch_command}")
    launched, given = surveyed.run.path / GRID, Path(surveyed.index.file)
    if launched.exists() and given.exists() and launched.read_bytes() != given.read_bytes():
        lines.append(f"{given} has changed since the launch; this is the status of the grid as it was launched")
    return lines


def node_notes(run: RunFolder) -> list[str]:
    """Nodes that failed, and those that are excluded for it."""
    counts = faults(run)
    if not counts:
        return []
    excluded = left_out(run)
    line = f"nodes that failed: {', '.join(f'{node} ({count})' for node, count in counts.items())}"
    return [line + (f"; excluded for the rest of this grid: {', '.join(excluded)}" if excluded else "")]


def memory_notes(surveyed: Survey) -> list[str]:
    """Stages that ran out of memory."""
    smaller = [stage for stage, names in surveyed.files.items() if MICRO_BATCH in names]
    if not smaller:
        return []
    event = "ran out of memory and went on with smaller micro-batches and the same global batch"
    return [f"{counted(len(smaller), 'stage')} {event}: {shortened(smaller, NAMED)}"]


def queue_notes(surveyed: Survey) -> list[str]:
    """Jobs that SLURM holds, when those that wait are expected to start, and SLURM's silence."""
    lines = []
    held = [job for job in surveyed.jobs.values() if not job.running and "held" in job.reason.lower()]
    if held:
        release = f"scontrol release {' '.join(str(job.job) for job in held[:NAMED])}{' ...' if len(held) > NAMED else ''}"
        lines.append(f"SLURM holds {counted(len(held), 'job')} ({held[0].reason}); release with: {release}")
    lines += waiting_note(surveyed.jobs.values(), datetime.now())
    if surveyed.silent:
        lines.append(f"{surveyed.silent}: the state of its jobs is unknown; nothing is lost, rerun this command later")
    return lines
