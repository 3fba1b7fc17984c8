"""report.html: a single file that opens offline, with all rows, plots and missing cells, and the command that runs each cell again.

The template escapes the texts of records, and figures.py escapes Plotly's texts. A content security policy lets no other script run.
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
from typing import TYPE_CHECKING, Any, Literal

from analysis import tuning
from analysis.budget import BUDGETS
from analysis.columns import COLUMNS, LEADERBOARD
from analysis.comparability import differing
from analysis.curves import curve
from analysis.exports import COSTS, coverage_lines
from analysis.figures import COLORS, accuracy_figure, axis, pareto_figure
from analysis.merge import Merged
from analysis.panel import panel_data
from analysis.printing import counted, title
from analysis.rows import Row
from analysis.score_figures import profile_figure, rank_figure
from analysis.scores import groups, percent_left
from analysis.statistics import SETTLED
from jobs.experiment.output import printable
from jobs.experiment.records import Record
from jobs.experiment.verification import Verification, verifications

if TYPE_CHECKING:
    from jinja2 import Template

HERE = Path(__file__).parent
SCRIPTS = ("panel", "report", "scores")  # in this sequence
MANY = 1000  # rows of a leaderboard that the page shows


@dataclass(frozen=True)
class Shown:
    """A column of the report: its heading, the column of leaderboard.csv by which it is sorted and explained, and its text."""

    heading: str
    column: str
    text: Callable[[Row], str]
    left: bool = False


def fixed(column: str, form: str) -> Callable[[Row], str]:
    """A function that reads the column in a format; empty if unknown."""

    def text(row: Row) -> str:
        value = COLUMNS[column].read(row)
        return "" if value is None else format(value, form)

    return text


def large(column: str) -> Callable[[Row], str]:
    """A function that reads the column in three digits with k, M or G."""

    def text(row: Row) -> str:
        value = COLUMNS[column].read(row)
        return counted(value) if isinstance(value, int | float) else ""

    return text


def rank(row: Row) -> str:
    """The rank with its interval, or with ~ if it has too few seeds."""
    if row.rank is None:
        return ""
    return f"{row.rank} ({row.standing.low}–{row.standing.high})" if row.standing else f"{row.rank}~"


def accuracy(row: Row) -> str:
    """Mean and standard deviation, or the kinds of failures."""
    if row.top1 is None:
        return row.failures
    return f"{row.top1.mean:.2f}" if row.top1.std is None else f"{row.top1.mean:.2f} ± {row.top1.std:.2f}"


def interval(row: Row) -> str:
    """The 95% interval of the mean, or why there is none."""
    if row.top1 is None:
        return ""
    return "too few seeds" if row.top1.low is None else f"{row.top1.low:.2f} to {row.top1.high:.2f}"


def seeds(row: Row) -> str:
    """The number of seeds with a result, and of those that the grid asks for if it is larger."""
    asked = row.expected or len(row.done) + len(row.failed)
    return str(len(row.done)) if len(row.done) == asked else f"{len(row.done)}/{asked}"


SHOWN: tuple[Shown, ...] = (
    Shown("rank", "rank", rank),
    Shown("model", "model", lambda row: row.model, left=True),
    Shown("pruning", "pruning", lambda row: row.pruning, left=True),
    Shown("top-1 %", "top1", accuracy),
    Shown("95% interval", "top1_ci95_low", interval),
    Shown("n", "n", seeds),
    Shown("vs dense", "top1_vs_dense", fixed("top1_vs_dense", "+.2f")),
    Shown("p (Holm)", "top1_vs_dense_p", fixed("top1_vs_dense_p", ".2g")),
    Shown("tie", "tie_group", fixed("tie_group", "d")),
    Shown("trials", "trials", fixed("trials", "d")),
    Shown("tuning gain", "tuning_gain", fixed("tuning_gain", "+.2f")),
    Shown("tuned", "tuned", tuning.chosen, left=True),
    Shown("top-5 %", "top5", fixed("top5", ".2f")),
    Shown("published", "published_top1", fixed("published_top1", ".1f")),
    Shown("vs published", "top1_vs_published", fixed("top1_vs_published", "+.2f")),
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
    """The rows that are ranked together, with their numbers in the page."""

    key: str
    title: str
    rows: tuple[tuple[int, Row], ...]
    left_out: int  # number of further rows


def report(rows: Sequence[Row], merged: Merged, runs: Sequence[Path]) -> str:
    """The page. Training curves are read from the stages in `runs`."""
    from plotly.offline import get_plotlyjs

    boards, compared = make_boards(rows), groups(rows)
    ranked_groups = [group for group in compared if group.ranking]
    scores = [{"ranks": rank_figure(group), "profiles": profile_figure(group)} for group in ranked_groups]
    panel = panel_data([(board.key, board.rows) for board in boards], runs)
    scripts = {"plotly": get_plotlyjs(), **{name: (HERE / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS}}
    return template("report.html").render(
        boards=boards,
        columns=shown_columns(rows),
        explained=LEADERBOARD,
        sort_value=sort_value,
        cells=lambda row: sorted(row.done + row.failed, key=lambda record: record.seed),
        notes=notes,
        verified=verified_lines(runs, merged.records),
        holes=[line for line in coverage_lines(rows, merged) if line["failed"] or line["missing"]],
        failures=[(row, record) for row in rows for record in row.failed],
        merged=merged,
        costs=[(cost, axis(cost)) for cost in COSTS],
        differ=differing(board.rows[0][1].key for board in boards),
        grids=sorted({record.grid for record in merged.records}),
        settled=SETTLED,
        budgets=BUDGETS,
        data=script_safe(page_data(boards, runs) | {"panel": panel, "scores": scores}),
        score_groups=compared,
        ranked_groups=ranked_groups,
        percent_left=percent_left,
        policy=" ".join(f"'sha256-{integrity(script)}'" for script in scripts.values()),
        scripts=scripts,
        style=(HERE / "report.css").read_text(encoding="utf-8"),
    )


def template(name: str) -> "Template":
    """A template of this folder, which escapes what it is given and shows no control characters."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=shown_text
    )
    return environment.get_template(name)


def shown_columns(rows: Sequence[Row]) -> list[Shown]:
    """The columns of the tables; those on official checkpoints and on tuning only if they say something of a row."""
    some = ("published_top1", "top1_vs_published", "trials", "tuning_gain", "tuned")
    return [shown for shown in SHOWN if shown.column not in some or any(shown.text(row) for row in rows)]


def make_boards(rows: Sequence[Row]) -> list[Board]:
    """The leaderboards of the page, one for each key, each with at most MANY rows."""
    keys = differing(row.key for row in rows)
    groups = [(key, tuple(group)) for key, group in groupby(enumerate(rows), key=lambda numbered: numbered[1].key)]
    return [Board(key=key.short, title=title(key, keys), rows=group[:MANY], left_out=len(group[MANY:])) for key, group in groups]


def shown_text(value: Any) -> Any:
    """`value` as the page shows it: text of records without control characters; the page's own parts as they are."""
    return printable(str(value), keep="\n\t") if isinstance(value, str | Path) and not hasattr(value, "__html__") else value


def sort_value(shown: Shown, row: Row) -> str:
    """The value by which the page sorts a cell: its number, or its text."""
    value = COLUMNS[shown.column].read(row)
    return "" if value is None else str(value)


def page_data(boards: Sequence[Board], runs: Sequence[Path]) -> dict[str, Any]:
    """The figures of boards, by key, and of rows, by number."""
    shown = {board.key: [row for _, row in board.rows] for board in boards}
    figures = {key: {"sparsity": accuracy_figure(rows)} | {cost: pareto_figure(rows, cost) for cost in COSTS} for key, rows in shown.items()}
    details = {
        number: {"loss": traces(row, runs, "loss"), "val_top1": traces(row, runs, "val_top1"), "layers": layers(row)}
        for board in boards
        for number, row in board.rows
    }
    return {"figures": figures, "rows": details}


def traces(row: Row, runs: Sequence[Path], metric: Literal["loss", "val_top1"]) -> list[dict[str, Any]]:
    """The training loss or the validation accuracy by epoch, a line per seed."""
    curves = filter(None, (curve(record, runs) for record in row.done + row.failed))
    return [
        {"name": f"seed {line.seed}", "x": line.epochs, "y": getattr(line, metric), "mode": "lines", "line": {"color": COLORS[i % len(COLORS)]}}
        for i, line in enumerate(curves)
    ]


def layers(row: Row) -> dict[str, float]:
    """Percentage of zeros in each prunable parameter, mean over seeds."""
    tables = [record.metrics.layers for record in row.done if record.metrics]
    return {name: 100 * fmean(table.get(name, 0.0) for table in tables) for name in (tables[0] if tables else {})}


def notes(row: Row) -> list[str]:
    """The notes of the records of a row, each once, with its seeds unless all seeds have it."""
    seeds: dict[str, list[str]] = defaultdict(list)
    for record in row.done:
        for note in record.metrics.notes if record.metrics else []:
            seeds[note].append(str(record.seed))
    return [note if len(who) == len(row.done) else f"seed {', '.join(who)}: {note}" for note, who in seeds.items()]


def verified_lines(runs: Sequence[Path], records: Sequence[Record]) -> Callable[[Row], list[str]]:
    """A function that gives the verifications of a row's cells, a line for each; those of numbers that no record has any more say so.

    Of a cell that ran on several clusters, a verification is shown at the record that it is about.
    """
    same: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        same[record.id].append(record)
    kept: dict[str, list[Verification]] = defaultdict(list)
    for verification in (verification for run in runs for verification in verifications(run)):
        if verification not in kept[verification.cell]:
            kept[verification.cell].append(verification)

    def lines(row: Row) -> list[str]:
        pairs = [(verification, record) for record in row.done for verification in kept.get(record.id, [])]
        return [verified_line(about, record) for about, record in pairs if about.fits(record) or not any(map(about.fits, same[record.id]))]

    return lines


def verified_line(verification: Verification, record: Record) -> str:
    """Who or what ran a cell again, when, and with what verdict."""
    by = verification.by or f"a run of {verification.finished[:10]}"
    when = f" on {verification.finished[:10]}" if verification.by else ""
    outdated = "" if verification.fits(record) else ", of other numbers than the record has now"
    reason = f": {verification.reasons[0]}" if verification.reasons else ""
    return f"seed {record.seed} verified by {by}{when}{outdated}: {verification.verdict}{reason}"


def script_safe(value: Any) -> str:
    """JSON for a script element: nothing in it ends the element or opens a comment."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def integrity(script: str) -> str:
    """The hash by which the page's policy allows a script."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
