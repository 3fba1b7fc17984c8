"""python -m harness.status [grid.yaml | run folder] [--watch]: what has become of a grid's cells.

Without a name: the grid.yaml of this folder, else what was launched last. Exit codes: 0 told, 2 nothing to tell about.
"""

import argparse
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from harness.monitor.incidents import IncidentGroup, cases, grouped, nodes_of, remedy
from harness.monitor.lookup import NameNotFound, find_run
from harness.monitor.survey import STATES, Survey, heard_s, survey
from harness.text import counted, duration
from jobs.experiment.index import RunIndexError
from jobs.experiment.run_folder import GRID, MICRO_BATCH, PROGRESS, RUNS, RunFolder
from jobs.recovery.nodes import faults, left_out

WATCH_S = 5.0
WIDTH = 200  # of what goes to a file or a pipe
ROWS = 20  # stages at work that are shown
GROUPS = 8
SILENT_S = 300.0  # without a word from a stage at work, after which that is said
COLOURS = {"done": "green", "running": "cyan", "queued": "", "blocked": "yellow", "failed": "red", "open": "", "unknown": "yellow"}
TRAIN_S = re.compile(rb'"train_s": ([\d.e+-]+)')


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    options = parse(arguments)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    try:
        run = find_run(options.grid, options.runs)
        if options.watch:
            watch(run, console)
        else:
            console.print(Status(run).look())
    except (NameNotFound, RunIndexError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        pass
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m harness.status", description=__doc__.splitlines()[0])
    parser.add_argument("grid", nargs="?", help="a grid.yaml or a run folder (default: ./grid.yaml, else what was launched last)")
    parser.add_argument("--watch", action="store_true", help=f"look again every {WATCH_S:.0f} s, until Ctrl-C or nothing is under way")
    parser.add_argument("--runs", type=Path, default=RUNS, help="where run folders are kept (default: %(default)s)")
    return parser.parse_args(arguments)


def watch(run: RunFolder, console: Console) -> None:
    """Shows the status until nothing runs or waits any more; where there is no terminal, one below the other."""
    status = Status(run)
    with Live(console=console, auto_refresh=False, vertical_overflow="visible") if console.is_terminal else nullcontext() as live:
        while True:
            shown = status.look()
            live.update(shown, refresh=True) if live else console.print(shown)
            if not status.under_way:
                return
            time.sleep(WATCH_S)


@dataclass
class Status:
    """Looks at a run folder, again and again; what cannot change any more is read once."""

    run: RunFolder
    spent_s: dict[str, float] = field(default_factory=dict)  # by finished stage
    under_way: bool = False

    def look(self) -> Group:
        """Everything there is to say now."""
        found = survey(self.run)
        counts = Counter(found.states.values())
        self.under_way = bool(counts["running"] or counts["queued"] or counts["unknown"])
        at_work = running(found)
        told = {stage: progress(self.run, stage) for stage in at_work}
        parts = [self.head(found, counts), table(counts), *self.sums(found, told, len(at_work))]
        if at_work:
            parts += [Text(), stages_table(self.run, found, told)]
        groups = grouped(cases(self.run, found))
        parts += [part for group in groups[:GROUPS] for part in group_text(group, found)]
        if len(groups) > GROUPS:
            parts.append(Text(f"and {counted(len(groups) - GROUPS, 'more kind')} of failure"))
        return Group(*parts, *self.foot(found))

    def head(self, found: Survey, counts: Mapping[str, int]) -> Text:
        """Grid and folder."""
        return Text(f"{found.index.grid}: {counts['done']} of {len(found.states)} cells done   ({self.run.path})", style="bold")

    def sums(self, found: Survey, told: Mapping[str, dict[str, float]], at_work: int) -> list[Text]:
        """Stages, hours used and left."""
        done = [stage for stage in found.index.stages if found.exported(stage)]
        for stage in done:
            if stage not in self.spent_s:
                self.spent_s[stage] = train_s(self.run, stage)
        now_s = sum(one.get("spent_s", 0.0) for one in told.values())
        used_s = sum(self.spent_s[stage] for stage in done) + now_s
        line = f"{len(done)} of {len(found.index.stages)} stages done, {used_s / 3600:.1f} hours of training used"
        left = left_s(found, self.spent_s, told)
        if at_work and left is not None:
            line += f"; about {duration(left / at_work)} to go with {at_work} at a time"
        return [Text(line)]

    def foot(self, found: Survey) -> list[Text]:
        """What needs a word besides."""
        lines = []
        blamed = ", ".join(f"{node} ({count})" for node, count in faults(self.run).items())
        if blamed:
            out = left_out(self.run)
            lines.append(f"nodes that failed: {blamed}" + (f"; left out for the rest of this grid: {', '.join(out)}" if out else ""))
        small = [stage for stage, names in found.files.items() if MICRO_BATCH in names]
        if small:
            what = "ran out of memory and went on with smaller micro-batches, the global batch kept"
            lines.append(f"{counted(len(small), 'stage')} {what}: {', '.join(small[:4])}")
        held = [job for job in found.jobs.values() if not job.running and "held" in job.reason.lower()]
        if held:
            remedy = f"scontrol release {' '.join(job.job for job in held[:4])}"
            lines.append(f"held by SLURM, {counted(len(held), 'job')} ({held[0].reason}), until somebody says: {remedy}")
        if found.silent:
            lines.append(f"{found.silent}: whether its jobs run is not known; nothing is lost, ask again later")
        left = sum(state == "open" for state in found.states.values())
        if left:
            lines.append(f"nobody works on {counted(left, 'open cell')}; from the last checkpoints: {found.launch_command}")
        frozen, given = self.run.path / GRID, Path(found.index.file)
        if frozen.exists() and given.exists() and frozen.read_bytes() != given.read_bytes():
            lines.append(f"{given} was changed since it was launched; this is what was launched")
        return [Text(line, style="yellow") for line in lines]


def table(counts: Mapping[str, int]) -> Table:
    """Cells by state."""
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for state in STATES:
        if state != "unknown" or counts[state]:
            shown.add_column(state, justify="right", style=COLOURS[state] if counts[state] else "dim")
    shown.add_row(*(str(counts[state]) for state in STATES if state != "unknown" or counts[state]))
    return shown


def running(found: Survey) -> list[str]:
    """The stages at work, each once."""
    return list(dict.fromkeys(found.stands_at[cell] for cell, state in found.states.items() if state == "running"))


def progress(run: RunFolder, stage: str) -> dict[str, float]:
    """The heartbeat of a stage, with the seconds that it has spent; empty before its first step."""
    try:
        told = json.loads((run.stage_dir(stage) / PROGRESS).read_bytes())
        left = told["steps"] - told["step"]
        told["spent_s"] = told["eta_s"] * told["step"] / left if told["eta_s"] and left else 0.0
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return dict(told)


def stages_table(run: RunFolder, found: Survey, told: Mapping[str, dict[str, float]]) -> Table:
    """The stages at work, and how far each is."""
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("stage", "", "epoch", "loss", "img/s", "left", "job", "on"):
        shown.add_column(name, justify="right" if name in ("epoch", "loss", "img/s", "left") else "left", no_wrap=name != "")
    for stage, one in list(told.items())[:ROWS]:
        shown.add_row(stage, found.index.stages[stage].title, *heartbeat(found, stage, one, heard_s(run, stage)), *whereabouts(found, stage))
    if len(told) > ROWS:
        shown.add_row(f"and {len(told) - ROWS} more")
    return shown


def heartbeat(found: Survey, stage: str, told: Mapping[str, float], heard: float) -> tuple[str, str, str, str]:
    """Epoch, loss, images/s and time left."""
    if found.exported(stage):
        return "measuring", "", "", ""
    if not told:
        return "starting", "", "", ""
    epoch = f"{told['epoch']:.0f}/{told['epochs']:.0f}"
    if heard > SILENT_S:
        return epoch, "", "", f"not heard of for {duration(heard)}"
    loss, speed, left = (told.get(name) for name in ("loss", "img_per_s", "eta_s"))
    return epoch, "" if loss is None else f"{loss:.3f}", "" if speed is None else f"{speed:.0f}", "" if left is None else duration(left)


def whereabouts(found: Survey, stage: str) -> tuple[str, str]:
    """Job and nodes of a stage at work."""
    job = found.alive(stage)
    return (job.job, job.nodes) if job else ("", "")


def train_s(run: RunFolder, stage: str) -> float:
    """Seconds of training that a finished stage took, over all restarts."""
    try:
        with open(f"{run.path}/stages/{stage}/export/result.json", "rb") as file:
            match = TRAIN_S.search(file.read())
    except OSError:
        return 0.0
    return float(match[1]) if match else 0.0


def left_s(found: Survey, spent_s: Mapping[str, float], told: Mapping[str, dict[str, float]]) -> float | None:
    """Seconds of training still to do, one stage after the other, as finished stages of the same kind took them; None before one has finished."""
    epochs_of, seconds_of = Counter[str](), Counter[str]()
    for stage, seconds in spent_s.items():
        entry = found.index.stages[stage]
        for kind in (entry.kind, ""):
            epochs_of[kind] += entry.epochs
            seconds_of[kind] += seconds  # type: ignore[assignment]
    if not epochs_of[""]:
        return None
    wanted = [entry.stages for cell, entry in found.index.cells.items() if found.states[cell] not in ("failed", "blocked")]
    needed = {stage for path in wanted for stage in path if not found.exported(stage)}
    total = 0.0
    for stage in needed:
        entry = found.index.stages[stage]
        kind = entry.kind if epochs_of[entry.kind] else ""
        total += max(0.0, entry.epochs - told.get(stage, {}).get("epoch", 0.0)) * seconds_of[kind] / epochs_of[kind]
    return total


def group_text(group: IncidentGroup, found: Survey) -> list[Text]:
    """A kind of failure: how many cells, one excerpt, what happens next."""
    first = group.cases[0]
    place = f" at {group.place}" if group.place else ""
    nodes = nodes_of(group.cases)
    head = f"\n{counted(group.cells, 'cell')}, {counted(len(group.cases), 'stage')}: {group.what}{place}" + (f", on {nodes}" if nodes else "")
    lines = [Text(head, style="bold red" if group.policy == "never" else "bold yellow")]
    lines += [Text(f"    {line}", style="dim") for line in first.excerpt]
    lines.append(Text(f"  of stage {first.stage} ({found.index.stages[first.stage].title}); all of it: python -m harness.logs {first.stage}"))
    lines.append(Text(f"  {remedy(group, found.launch_command)}"))
    return lines


if __name__ == "__main__":
    sys.exit(main())
