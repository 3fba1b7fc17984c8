"""Records -> leaderboard.csv (a line a row), cells.csv (a line a cell), and the table that is printed."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.columns import CELLS, LEADERBOARD, Value, cell_line
from analysis.comparability import Key, differing
from analysis.files import write_text
from analysis.merge import Merged, merge
from analysis.rows import SETTLED, Row, make_rows
from analysis.statistics import Summary

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table


@dataclass(frozen=True, kw_only=True)
class Published:
    """The files that were written, and the table to print."""

    leaderboard: Path
    cells: Path
    table: "Group"


def publish(runs: Sequence[Path], out: Path) -> Published:
    """Writes leaderboard.csv and cells.csv of all run folders to `out`. Raises AnalysisError when they hold no record."""
    merged = merge(runs)
    rows = make_rows(merged)
    written = Published(leaderboard=out / "leaderboard.csv", cells=out / "cells.csv", table=printed(rows, merged))
    write_csv(written.leaderboard, [column.name for column in LEADERBOARD], ({column.name: column.read(row) for column in LEADERBOARD} for row in rows))
    write_csv(written.cells, CELLS, (cell_line(record, row.key) for row in rows for record in sorted(row.done + row.failed, key=lambda one: one.seed)))
    return written


def write_csv(path: Path, names: Sequence[str], lines: Iterable[Mapping[str, Value]]) -> None:
    """Writes the lines under a header, whole or not at all. An unknown value is an empty field."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([written(line.get(name)) for name in names] for line in lines)
    write_text(path, text.getvalue())


def written(value: Value) -> str:
    """A value as it stands in a CSV: at most 8 digits, true and false, empty when unknown."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.8g}" if isinstance(value, float) else str(value)


def printed(rows: Sequence[Row], merged: Merged) -> "Group":
    """The leaderboards, one for each comparability key, and what was left out of them."""
    from rich.console import Group
    from rich.text import Text

    differ = differing(row.key for row in rows)
    parts = [table(key, list(group), differ) for key, group in groupby(rows, key=lambda row: row.key)]
    if differ:
        told = f"{len(parts)} leaderboards: rows that differ in {', '.join(differ)} are not ranked together."
        parts.append(Text(told, style="yellow"))
    parts += [Text(f"conflict: {one}", style="red") for one in merged.conflicts]
    parts += [Text(f"skipped {one.path}: {one.reason}", style="yellow") for one in merged.skipped]
    return Group(*parts)


HEADINGS = ("#", "model", "pruning", "top-1 %", "n", "vs dense", "sparse", "weights", "MACs", "img/s")
CAPTION = f"± standard deviation over n seeds; ~ not settled: n < {SETTLED}; weights, MACs: of those that are not zero"


def table(key: Key, rows: Sequence[Row], differ: Sequence[str]) -> "Table":
    """One leaderboard. `differ`: the fields of the key that tell it from the others, shown in its title."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    values = asdict(key)
    told = "; ".join(f"{name} {values[name]}" for name in differ) or f"{key.data}, {key.loader}, batch {key.batch_size}, {key.dtype}, {key.device}"
    made = Table(title=Text(f"leaderboard {key.short}: {told}"), caption=CAPTION, title_justify="left", caption_justify="left", box=SIMPLE_HEAD, padding=0)
    for heading in HEADINGS:
        made.add_column(heading, justify="left" if heading in ("model", "pruning") else "right", overflow="fold")
    for row in rows:
        made.add_row(*(Text(text) for text in shown(row)))
    return made


def shown(row: Row) -> tuple[str, ...]:
    """A row of the printed table, under HEADINGS."""
    values = {column.name: column.read(row) for column in LEADERBOARD}
    asked = row.expected or len(row.done) + len(row.failed)
    return (
        "" if row.rank is None else f"{row.rank}{'' if len(row.done) >= SETTLED else '~'}",
        row.model,
        row.pruning,
        spread(row.top1) or str(values["failed"]),
        f"{len(row.done)}" if len(row.done) == asked else f"{len(row.done)}/{asked}",
        f"{row.against_dense.mean:+.2f}" if row.against_dense else "",
        "" if values["sparsity"] is None else f"{100 * row.mean(lambda m: m.sparsity_prunable):.3g}%",
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
