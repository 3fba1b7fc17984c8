"""A status that stays on the screen, and the lines that stand for it where there is no terminal."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.text import Text

from harness.monitor.incidents import IncidentGroup
from harness.monitor.model_bars import ModelBars
from harness.monitor.run_status import Observer, RunStatus
from harness.monitor.status_view import counts_table, head, hours, incident_lines, notes, page, stages_table
from harness.text import counted
from jobs.experiment.ids import StageId
from jobs.experiment.output import printable

SCREEN_S, LINES_S = 2.0, 5.0  # between two looks at the files: for a screen, for lines
BUSY = 10  # a look takes at most one part in so many of the time
SUMMARY_S = 300.0  # between two lines of a run of which nothing else is to be said
REDRAWS_PER_S = 2.0  # so that a screen follows its window's size
GROUPS = 6  # kinds of failure on the screen
LEAVE = "Ctrl-C leaves; the run goes on"


class Suspended(Exception):
    """The user has pressed Ctrl-Z."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What rich prints: a status, cut to the height of the screen with a line that says so."""

    content: RenderableType
    foot: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The lines, and the foot at the bottom."""
        height = options.height or console.height
        lines = console.render_lines(self.content, options.update(height=None), pad=False)
        room = max(1, height - 1)
        cut = len(lines) > room
        for line in lines[: room - 1 if cut else room]:
            yield from line
            yield Segment.line()
        if cut:
            yield Text(f"and {counted(len(lines) - room + 1, 'more line')}: enlarge the window", style="dim", no_wrap=True, overflow="crop")
        yield Text(self.foot, style="dim", no_wrap=True, overflow="crop", end="")


def screen(status: RunStatus) -> Group:
    """The status for a screen, the most important first: counts, bars, failures, the stages at work, notes."""
    parts: list[RenderableType] = [head(status), counts_table(status.counts), Text(hours(status)), ModelBars(models=status.models)]
    for group in status.groups[:GROUPS]:
        parts.append(short_incident(group))
    if len(status.groups) > GROUPS:
        parts.append(Text(f"and {counted(len(status.groups) - GROUPS, 'more kind')} of failure: python -m harness.status"))
    if status.at_work:
        parts.append(stages_table(status.surveyed, status.at_work, status.progress))
    return Group(*parts, *(Text(line, style="yellow") for line in notes(status.surveyed)))


def short_incident(group: IncidentGroup) -> Text:
    """A kind of failure in a line or two: how many cells, the last line of the first one's excerpt, and the command that shows its log."""
    first = group.incidents[0]
    why = first.excerpt[-1].strip() if first.excerpt else ""
    said = why if group.kind in why else f"{group.kind}: {why}".removesuffix(": ")
    text = f"{counted(group.cells, 'cell')}, {counted(len(group.incidents), 'stage')}: {said}; python -m harness.logs {first.stage}"
    return Text(printable(text), style="red" if group.policy == "never" else "yellow")


def watch(observer: Observer, console: Console, sleep: Callable[[float], None] = time.sleep) -> RunStatus | None:
    """The last status, when nothing runs or waits any more, or after Ctrl-C; None if there was no time for one. It was shown meanwhile.

    A terminal shows it in place, on a screen of its own, and is left as it was. Other output gets a line for whatever has changed.
    """
    if console.is_terminal and not console.is_dumb_terminal:
        return on_screen(observer, console, sleep)
    return in_lines(observer, console, sleep)


def on_screen(observer: Observer, console: Console, sleep: Callable[[float], None]) -> RunStatus | None:
    """Shows the status on the terminal's second screen."""
    status: RunStatus | None = None
    with interrupting(signal.SIGTERM, KeyboardInterrupt), interrupting(signal.SIGTSTP, Suspended):
        while True:
            try:
                with Live(console=console, screen=True, auto_refresh=True, refresh_per_second=REDRAWS_PER_S) as live:
                    for status in looks(observer, SCREEN_S, sleep):
                        live.update(Fitted(content=screen(status), foot=foot(status)), refresh=True)
                return status
            except Suspended:
                os.kill(os.getpid(), signal.SIGSTOP)
            except KeyboardInterrupt:
                return status


def foot(status: RunStatus) -> str:
    """The last line of the screen."""
    return f"{time.strftime('%H:%M:%S', time.localtime(status.time))}  {LEAVE}"


def looks(observer: Observer, every_s: float, sleep: Callable[[float], None], clock: Callable[[], float] = time.monotonic) -> Iterator[RunStatus]:
    """The status again and again, until nothing runs or waits."""
    while True:
        begun = clock()
        status = observer.look()
        took_s = clock() - begun
        yield status
        if not status.under_way:
            return
        sleep(max(every_s, BUSY * took_s))


@contextmanager
def interrupting(number: signal.Signals, error: type[BaseException]) -> Iterator[None]:
    """Lets a signal raise an exception while the block runs, so that the block ends as it should."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise error

    before = signal.signal(number, interrupt)
    try:
        yield
    finally:
        signal.signal(number, before)


def in_lines(observer: Observer, console: Console, sleep: Callable[[float], None]) -> RunStatus | None:
    """Prints the whole status, then a line for each cell that ends and each stage that fails, and a summary now and then."""
    before: RunStatus | None = None
    said = time.monotonic()
    try:
        for status in looks(observer, LINES_S, sleep):
            lines: Sequence[RenderableType] = [page(status)] if before is None else news(before, status)
            if not lines and time.monotonic() - said >= SUMMARY_S:
                lines = [Text(stamped(status, summary(status)))]
            for line in lines:
                console.print(line, soft_wrap=isinstance(line, Text))
                said = time.monotonic()
            before = status
    except KeyboardInterrupt:
        pass
    return before


def news(before: RunStatus, now: RunStatus) -> list[Text]:
    """What has changed between two looks, as lines."""
    lines: list[Text] = []
    for cell, state in now.surveyed.states.items():
        if state == "done" and before.surveyed.states.get(cell) != "done":
            lines.append(Text(stamped(now, f"done: {cell}  {now.surveyed.index.cells[cell].title}")))
    known = {incident.stage for group in before.groups for incident in group.incidents}
    for group in now.groups:
        lines += incident_lines(new_of(group, known), now.surveyed) if any(incident.stage not in known for incident in group.incidents) else []
    if lines or now.counts != before.counts:
        lines.append(Text(stamped(now, summary(now))))
    return lines


def new_of(group: IncidentGroup, known: set[StageId]) -> IncidentGroup:
    """The incidents of a group that were not known."""
    return replace(group, incidents=tuple(incident for incident in group.incidents if incident.stage not in known))


def summary(status: RunStatus) -> str:
    """Counts and time left in a line."""
    counts = ", ".join(f"{count} {state}" for state, count in status.counts.items() if count)
    return f"{counts} of {len(status.surveyed.states)} cells; {hours(status)}"


def stamped(status: RunStatus, text: str) -> str:
    """A line with the time before it."""
    return printable(f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(status.time))}  {text}")
