"""The leaderboard for a terminal."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING

from analysis import tuning
from analysis.comparability import Key, differing, digest
from analysis.merge import Merged
from analysis.rows import Row
from analysis.statistics import SETTLED, Summary
from jobs.experiment.output import FittedTable, encodable, printable

if TYPE_CHECKING:
    from rich.console import Group
    from rich.text import Text


def printed(rows: Sequence[Row], merged: Merged) -> "Group":
    """The leaderboards, a table for each comparability key, and the collapsed layers, conflicts and skipped files."""
    from rich.console import Group
    from rich.text import Text

    differ = differing(row.key for row in rows)
    parts: list[FittedTable | Text] = [table(key, list(group), differ) for key, group in groupby(rows, key=lambda row: row.key)]
    if differ:
        note = f"{len(parts)} leaderboards: rows that differ in {', '.join(differ)} are not ranked together."
        parts.append(Text(note, style="yellow"))
    parts += noted([line for row in rows if (line := published_line(row))], "cyan")
    parts += noted([line for row in rows if (line := tuned_line(row))], "cyan")
    emptied = [(row, dead) for row in rows if (dead := dead_layers(row))]
    parts += noted([f"collapsed: {row.model}, {row.pruning}: all weights are zero in {', '.join(dead)}" for row, dead in emptied], "red")
    parts += noted(conflicts(merged), "red") + noted(skipped(merged), "yellow")
    return Group(*parts)


def published_line(row: Row) -> str | None:
    """The published, measured and differing top-1 of an official checkpoint as it is; None for other rows."""
    published = row.mean(lambda m: m.published_top1)
    if published is None or row.top1 is None:
        return None
    return f"{row.model}: published {published:.1f}, measured {row.top1.mean:.2f}, difference {row.top1.mean - published:+.2f}"


def tuned_line(row: Row) -> str | None:
    """How many trials stood behind a row, what was chosen, and how far it mattered; None for a row that was not tuned."""
    trials, failed, gained = tuning.trials(row), tuning.failed_trials(row), tuning.gain(row)
    if trials is None or gained is None:
        return None
    lost = f", {failed} failed" if failed else ""
    return f"tuned: {row.model}, {row.pruning}: trials {trials}{lost}, validation gain {gained:+.2f}, {tuning.chosen(row)}"


def dead_layers(row: Row) -> list[str]:
    """The prunable parameters that are all zero in at least one of the row's cells."""
    return sorted({name for record in row.done if record.metrics for name in record.metrics.collapsed})


def conflicts(merged: Merged) -> list[str]:
    """The cells with two results, a line for each."""
    return [f"conflict: {conflict}" for conflict in merged.conflicts]


def skipped(merged: Merged) -> list[str]:
    """The files that were skipped, a line for each."""
    return [f"skipped {file.path}: {file.reason}" for file in merged.skipped]


def remarks(merged: Merged) -> list[str]:
    """The first conflicts and skipped files as lines of text: what an answer does not rest on."""
    return [printable(line) for lines in (conflicts(merged), skipped(merged)) for line in shortened(lines, NOTED)]


def noted(lines: Sequence[str], style: str) -> list["Text"]:
    """The first NOTED lines, never wrapped, and the number of the others."""
    from rich.text import Text

    texts = shortened(lines, NOTED, ", all in report.html")
    return [Text(printable(line), style=style, no_wrap=True, overflow="ignore") for line in texts]


def shortened(lines: Sequence[str], most: int, where: str = "") -> list[str]:
    """The first lines, and the number of the others, with where they are."""
    return [*lines[:most], *([f"and {len(lines) - most} more{where}"] if len(lines) > most else [])]


def number_of(count: int, noun: str) -> str:
    """1 row, 2 rows."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


NOTED = 20
LONG = 50  # characters
HEADINGS = ("#", "model", "pruning", "top-1 %", "n", "vs dense", "sparse", "weights", "MACs", "img/s")
NAMES = tuple(HEADINGS.index(name) for name in ("#", "model", "pruning"))
CAPTION = f"± standard deviation over n seeds; ~ not settled: n < {SETTLED}; weights, MACs: of those that are not zero"


def table(key: Key, rows: Sequence[Row], differ: Sequence[str]) -> FittedTable:
    """The leaderboard of a key. `differ`: the fields in which the keys differ, shown in its title."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    heading, caption = Text(encodable(title(key, differ))), Text(encodable(CAPTION))
    made = Table(title=heading, caption=caption, title_justify="left", caption_justify="left", box=SIMPLE_HEAD, padding=0)
    for name in HEADINGS:
        made.add_column(name, justify="left" if name in ("model", "pruning") else "right", overflow="fold")
    for row in rows:
        made.add_row(*(Text(encodable(text)) for text in shown(row)))
    return FittedTable(table=made, names=NAMES)


def title(key: Key, differ: Sequence[str]) -> str:
    """The title of a leaderboard: its key, and the fields in which it differs from the others, or else its main settings."""
    values = asdict(key)
    settings = (
        "; ".join(f"{name} {brief(values[name])}" for name in differ)
        or f"{key.data}, {key.loader}, batch {key.batch_size}, {key.dtype}, {key.device}"
    )
    return printable(f"leaderboard {key.short}: {settings}")


def brief(value: object) -> str:
    """The value, or the beginning of its hash if it is long."""
    return text if len(text := str(value)) <= LONG else f"#{digest(value)[:6]}"


def shown(row: Row) -> tuple[str, ...]:
    """The texts of a row of the printed table, under HEADINGS."""
    sparsity = row.mean(lambda m: m.sparsity_prunable)
    asked = row.expected or len(row.done) + len(row.failed)
    return (
        "" if row.rank is None else f"{row.rank}{'' if len(row.done) >= SETTLED else '~'}",
        row.model,
        row.pruning,
        spread(row.top1) or row.failures,
        f"{len(row.done)}" if len(row.done) == asked else f"{len(row.done)}/{asked}",
        f"{row.against_dense.mean:+.2f}" if row.against_dense else "",
        "" if sparsity is None else f"{100 * sparsity:.3g}%",
        counted(row.mean(lambda m: m.params_nonzero)),
        counted(row.mean(lambda m: m.macs_nonzero)),
        counted(row.median(lambda m: m.throughput_img_per_s)),
    )


def spread(summary: Summary | None) -> str:
    """mean±standard deviation."""
    if summary is None:
        return ""
    return f"{summary.mean:.2f}" if summary.std is None else f"{summary.mean:.2f}±{summary.std:.2f}"


def counted(value: float | None) -> str:
    """A large number in three digits: 999, 12.3k, 4.56M, 789G."""
    if value is None:
        return ""
    for unit in ("", "k", "M", "G"):
        if value < 999.5:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g}T"
