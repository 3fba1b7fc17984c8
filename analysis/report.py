"""report.html: one file that opens offline, with every row, plot, hole and the way to run each cell again.

The template escapes what stands in records; Plotly's texts are escaped where figures are made; a content security policy lets no other script run.
"""

import base64
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

from analysis.columns import COLUMNS, LEADERBOARD
from analysis.comparability import differing
from analysis.curves import curve
from analysis.exports import COSTS, coverage_lines
from analysis.figures import COLORS, accuracy_figure, axis, pareto_figure
from analysis.merge import Merged
from analysis.printing import counted, title
from analysis.rows import Row
from analysis.statistics import SETTLED

HERE = Path(__file__).parent
MANY = 1000  # rows of a leaderboard that the page shows


@dataclass(frozen=True)
class Shown:
    """A column of the report: heading, the leaderboard's column that sorts it and explains it, and its text."""

    heading: str
    column: str
    text: Callable[[Row], str]
    left: bool = False


def fixed(column: str, form: str) -> Callable[[Row], str]:
    """Reads the column in that format, empty where unknown."""

    def text(row: Row) -> str:
        value = COLUMNS[column].read(row)
        return "" if value is None else format(value, form)

    return text


def large(column: str) -> Callable[[Row], str]:
    """Reads the column in three digits with k, M, G."""

    def text(row: Row) -> str:
        value = COLUMNS[column].read(row)
        return counted(value) if isinstance(value, int | float) else ""

    return text


def place(row: Row) -> str:
    """The rank, with its interval, or ~ where too few seeds settle it."""
    if row.rank is None:
        return ""
    return f"{row.rank} ({row.standing.low}–{row.standing.high})" if row.standing else f"{row.rank}~"


def accuracy(row: Row) -> str:
    """Mean and standard deviation, or what happened instead."""
    if row.top1 is None:
        return row.failures
    return f"{row.top1.mean:.2f}" if row.top1.std is None else f"{row.top1.mean:.2f} ± {row.top1.std:.2f}"


def interval(row: Row) -> str:
    """The 95% interval of the mean."""
    return f"{row.top1.low:.2f} to {row.top1.high:.2f}" if row.top1 and row.top1.low is not None else ""


def seeds(row: Row) -> str:
    """Seeds with a number, of those asked for."""
    asked = row.expected or len(row.done) + len(row.failed)
    return str(len(row.done)) if len(row.done) == asked else f"{len(row.done)}/{asked}"


SHOWN: tuple[Shown, ...] = (
    Shown("rank", "rank", place),
    Shown("model", "model", lambda row: row.model, left=True),
    Shown("pruning", "pruning", lambda row: row.pruning, left=True),
    Shown("top-1 %", "top1", accuracy),
    Shown("95% interval", "top1_ci95_low", interval),
    Shown("n", "n", seeds),
    Shown("vs dense", "top1_vs_dense", fixed("top1_vs_dense", "+.2f")),
    Shown("p (Holm)", "top1_vs_dense_p", fixed("top1_vs_dense_p", ".2g")),
    Shown("tie", "tie_group", fixed("tie_group", "d")),
    Shown("top-5 %", "top5", fixed("top5", ".2f")),
    Shown("sparsity", "sparsity", fixed("sparsity", ".1%")),
    Shown("of all", "sparsity_all", fixed("sparsity_all", ".1%")),
    Shown("parameters", "params", large("params")),
    Shown("non-zero", "params_nonzero", large("params_nonzero")),
    Shown("GMACs dense", "gmacs_dense", fixed("gmacs_dense", ".4g")),
    Shown("structural", "infer_gmacs", fixed("infer_gmacs", ".4g")),
    Shown("non-zero", "gmacs_nonzero", fixed("gmacs_nonzero", ".4g")),
    Shown("× theory", "speedup_theoretical", fixed("speedup_theoretical", ".2f")),
    Shown("× structural", "speedup_structural", fixed("speedup_structural", ".2f")),
    Shown("× measured", "speedup_measured", fixed("speedup_measured", ".2f")),
    Shown("images/s", "infer_samples_per_sec", large("infer_samples_per_sec")),
    Shown("p50 ms", "latency_ms", fixed("latency_ms", ".3g")),
    Shown("p90 ms", "latency_p90_ms", fixed("latency_p90_ms", ".3g")),
    Shown("p99 ms", "latency_p99_ms", fixed("latency_p99_ms", ".3g")),
    Shown("memory MB", "peak_memory_mb", fixed("peak_memory_mb", ".4g")),
    Shown("in training", "train_peak_memory_mb", fixed("train_peak_memory_mb", ".4g")),
    Shown("file MB", "file_mb", fixed("file_mb", ".3g")),
    Shown("train images/s", "train_samples_per_sec", large("train_samples_per_sec")),
    Shown("epochs", "epochs", fixed("epochs", ".4g")),
    Shown("train s", "train_s", large("train_s")),
    Shown("GPU h", "train_gpu_h", fixed("train_gpu_h", ".3g")),
    Shown("CPU h", "train_cpu_h", fixed("train_cpu_h", ".3g")),
    Shown("train Wh", "train_wh", fixed("train_wh", ".3g")),
    Shown("failed", "failed", lambda row: row.failures, left=True),
)


@dataclass(frozen=True, kw_only=True)
class Board:
    """The rows that are ranked together, numbered as in the page."""

    key: str
    title: str
    rows: tuple[tuple[int, Row], ...]
    left_out: int  # rows behind those


def report(rows: Sequence[Row], merged: Merged, runs: Sequence[Path]) -> str:
    """The page. Training curves are read from the stages in `runs`."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    boards = make_boards(rows)
    scripts = {"plotly": get_plotlyjs(), "page": (HERE / "report.js").read_text(encoding="utf-8")}
    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("report.html").render(
        boards=boards,
        columns=SHOWN,
        explained=LEADERBOARD,
        sort_value=sort_value,
        cells=lambda row: sorted(row.done + row.failed, key=lambda record: record.seed),
        notes=notes,
        holes=[line for line in coverage_lines(rows, merged) if line["failed"] or line["missing"]],
        failures=[record for row in rows for record in row.failed],
        merged=merged,
        costs=[(cost, axis(cost)) for cost in COSTS],
        differ=differing(board.rows[0][1].key for board in boards),
        grids=sorted({record.grid for record in merged.records}),
        settled=SETTLED,
        data=script_safe(page_data(boards, runs)),
        policy=" ".join(f"'sha256-{integrity(script)}'" for script in scripts.values()),
        scripts=scripts,
        style=(HERE / "report.css").read_text(encoding="utf-8"),
    )


def make_boards(rows: Sequence[Row]) -> list[Board]:
    """The leaderboards of the page, one a key, each with as many rows as a browser can hold."""
    keys = differing(row.key for row in rows)
    groups = [(key, tuple(group)) for key, group in groupby(enumerate(rows), key=lambda one: one[1].key)]
    return [Board(key=key.short, title=title(key, keys), rows=group[:MANY], left_out=len(group[MANY:])) for key, group in groups]


def sort_value(shown: Shown, row: Row) -> str:
    """What the page sorts a cell by: the number behind it, or its text."""
    value = COLUMNS[shown.column].read(row)
    return "" if value is None else str(value)


def page_data(boards: Sequence[Board], runs: Sequence[Path]) -> dict[str, Any]:
    """The figures: by key those of a board, by number those of a row."""
    figures = {
        board.key: {"sparsity": accuracy_figure(found := [row for _, row in board.rows])} | {cost: pareto_figure(found, cost) for cost in COSTS}
        for board in boards
    }
    details = {
        number: {"loss": traces(row, runs, "loss"), "val_top1": traces(row, runs, "val_top1"), "layers": layers(row)}
        for board in boards
        for number, row in board.rows
    }
    return {"figures": figures, "rows": details}


def traces(row: Row, runs: Sequence[Path], what: str) -> list[dict[str, Any]]:
    """A line a seed of the training loss or the validation accuracy by epoch."""
    curves = [found for record in row.done + row.failed if (found := curve(record, runs))]
    return [
        {"name": f"seed {one.seed}", "x": one.epochs, "y": getattr(one, what), "mode": "lines", "line": {"color": COLORS[i % len(COLORS)]}}
        for i, one in enumerate(curves)
    ]


def layers(row: Row) -> dict[str, float]:
    """Percent of zeros of each prunable parameter, mean over seeds."""
    tables = [record.metrics.layers for record in row.done if record.metrics]
    return {name: 100 * fmean(table.get(name, 0.0) for table in tables) for name in (tables[0] if tables else {})}


def notes(row: Row) -> list[str]:
    """What the records of a row remark, each remark once, with the seeds that made it."""
    seeds: dict[str, list[str]] = defaultdict(list)
    for record in row.done:
        for note in record.metrics.notes if record.metrics else []:
            seeds[note].append(str(record.seed))
    return [note if len(who) == len(row.done) else f"seed {', '.join(who)}: {note}" for note, who in seeds.items()]


def script_safe(value: Any) -> str:
    """JSON that can stand inside a script element: nothing in it ends the element or opens a comment."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def integrity(script: str) -> str:
    """The hash by which the page's policy knows a script of its own."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
