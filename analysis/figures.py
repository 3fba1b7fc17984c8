"""Figures for the report (Plotly) and for papers (matplotlib): accuracy against sparsity, and accuracy against cost with its Pareto front."""

import html
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.columns import COLUMNS
from analysis.comparability import digest
from analysis.exports import COSTS, front
from analysis.labels import knobs_of
from analysis.rows import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEGEND, END = 48, 12  # characters of a name in a legend; of these at its end, if it is longer

COLORS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#7A5C00",
    "#444444",
)  # Okabe and Ito's palette, which colour-blind readers can distinguish
SYMBOLS = {"circle": "o", "square": "s", "diamond": "D", "triangle-up": "^", "cross": "P", "x": "X", "star": "*"}  # Plotly's name: matplotlib's


@dataclass(frozen=True, kw_only=True)
class Line:
    """A method on a model at growing sparsity, as the rows that have a top-1."""

    name: str
    color: str
    symbol: str
    rows: tuple[Row, ...]


def lines(rows: Sequence[Row]) -> tuple[Line, ...]:
    """A line for every model and method, and for every setting of knobs other than the sparsity. Colours show the method, symbols the model."""
    groups: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in sorted((row for row in rows if row.top1), key=lambda row: (row.model, row.method, sparsity(row))):
        groups[row.model, row.method, digest(other_knobs(row))].append(row)
    methods, models = (list(dict.fromkeys(name[i] for name in sorted(groups))) for i in (1, 0))
    return tuple(
        Line(
            name=line_name(group, [other for name, other in groups.items() if name[:2] == (model, method)]),
            color=COLORS[methods.index(method) % len(COLORS)],
            symbol=list(SYMBOLS)[models.index(model) % len(SYMBOLS)],
            rows=tuple(group),
        )
        for (model, method, _), group in groups.items()
    )


def line_name(group: Sequence[Row], alike: Sequence[Sequence[Row]]) -> str:
    """Model and method, and the knobs in which this line differs from others of this model and method."""
    knobs = [other_knobs(other[0]) for other in alike]
    differ = [name for name in knobs[0] if len({digest(values.get(name)) for values in knobs}) > 1]
    return " ".join([group[0].model, group[0].method, *(f"{name}={other_knobs(group[0]).get(name)}" for name in differ)])


def fitting(names: Iterable[str], room: int) -> dict[str, str]:
    """The names as a figure has room for them: of one with more than `room` characters its beginning and its end. Different names stay different."""
    alike: Counter[str] = Counter()
    shown = {}
    for name in dict.fromkeys(names):
        text = name if len(name) <= room else f"{name[: room - END - 1]}…{name[-END:]}"
        alike[text] += 1
        shown[name] = text if alike[text] == 1 else f"{text} ({alike[text]})"
    return shown


def other_knobs(row: Row) -> dict[str, Any]:
    """The knobs of the row's method, or of its methods, without their sparsity."""
    knobs = knobs_of(row.spec.get("pruning", {}))
    return {name: value for name, value in knobs.items() if name.rpartition(".")[2] != "sparsity"}


def sparsity(row: Row) -> float:
    """Percentage of zeros among the prunable weights."""
    return 100 * (row.mean(lambda m: m.sparsity_prunable) or 0.0)


def accuracy_figure(rows: Sequence[Row]) -> dict[str, Any]:
    """Top-1 with 95% intervals against sparsity, as a Plotly figure."""
    shown = lines(rows)
    names = fitting([line.name for line in shown], LEGEND)
    data = [
        trace(names[line.name], [sparsity(row) for row in line.rows], line.rows, mode="lines+markers")
        | {"marker": {"color": line.color, "symbol": line.symbol, "size": 8}, "line": {"color": line.color, "width": 1.5}}
        for line in shown
    ]
    return {"data": data, "layout": {"xaxis": {"title": {"text": "zeros among prunable weights (%)"}}, "yaxis": {"title": {"text": "top-1 (%)"}}}}


def pareto_figure(rows: Sequence[Row], cost: str) -> dict[str, Any]:
    """Top-1 against a cost as a Plotly figure: a point per row, and the Pareto front as a step line."""
    column = COLUMNS[cost]
    values = {id(row): column.read(row) for row in rows}
    shown, data = lines(rows), []
    names = fitting([line.name for line in shown], LEGEND)
    for line in shown:
        known = [row for row in line.rows if values[id(row)] is not None]
        data.append(
            trace(names[line.name], [values[id(row)] for row in known], known, mode="markers")
            | {"marker": {"color": line.color, "symbol": line.symbol, "size": 9}}
        )
    best = front(rows, [values[id(row)] for row in rows])
    steps = {
        "x": [value for _, value in best],
        "y": [row.top1.mean for row, _ in best if row.top1],
        "mode": "lines",
        "name": "front",
        "hoverinfo": "skip",
    }
    data.append(steps | {"line": {"shape": "hv", "color": "#888", "dash": "dot"}})
    return {"data": data, "layout": {"xaxis": {"title": {"text": axis(cost)}}, "yaxis": {"title": {"text": "top-1 (%)"}}}}


def axis(cost: str) -> str:
    """The title of a cost's axis."""
    unit = COLUMNS[cost].unit
    return f"{cost} ({unit})" if unit else cost


def trace(name: str, x: Sequence[Any], rows: Sequence[Row], *, mode: str) -> dict[str, Any]:
    """Points of top-1 with their intervals and hover texts. Plotly reads HTML in texts, so they are escaped."""
    means, below, above = intervals(rows)
    errors = {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "thickness": 1, "width": 3}
    texts = [hover(row) for row in rows]
    return {
        "name": html.escape(name),
        "x": list(x),
        "y": means,
        "error_y": errors,
        "mode": mode,
        "text": texts,
        "hovertemplate": "%{text}<extra></extra>",
    }


def intervals(rows: Sequence[Row]) -> tuple[list[float], list[float], list[float]]:
    """(means of top-1, lengths of their 95% intervals below, above); length 0 for too few seeds, which have no interval."""
    summaries = [row.top1 for row in rows if row.top1]
    return (
        [summary.mean for summary in summaries],
        [0.0 if summary.low is None else summary.mean - summary.low for summary in summaries],
        [0.0 if summary.high is None else summary.high - summary.mean for summary in summaries],
    )


def hover(row: Row) -> str:
    """The hover text of a point: the row, its accuracy, its rank and its costs."""
    assert row.top1
    interval = " (too few seeds)" if row.top1.low is None else f" [{row.top1.low:.2f}, {row.top1.high:.2f}]"
    costs = [f"{axis(cost)}: {value:.4g}" for cost in COSTS if isinstance(value := COLUMNS[cost].read(row), int | float)]
    texts = [
        f"{row.model}, {row.pruning}",
        f"top-1 {row.top1.mean:.2f}{interval}, n = {row.top1.n}, rank {row.rank}",
        f"sparsity {sparsity(row):.4g}%",
        *costs,
    ]
    return "<br>".join(map(html.escape, texts))


def write_figures(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Writes the report's plots as SVG and PNG: for each key, accuracy against sparsity and against every cost. Returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for key, group in groupby(rows, key=lambda row: row.key):
        board = list(group)
        written += draw(lines(board), {}, "zeros among prunable weights (%)", folder / f"{key.short}-sparsity")
        for cost in COSTS:
            written += draw(lines(board), {id(row): COLUMNS[cost].read(row) for row in board}, axis(cost), folder / f"{key.short}-{cost}")
    return written


def draw(shown: Sequence[Line], costs: Mapping[int, Any], label: str, path: Path) -> list[Path]:
    """Writes a figure as SVG and PNG. `costs`: the abscissa by id of the row; if empty, the sparsity, with points joined by lines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    names = fitting([line.name for line in shown], LEGEND)
    for line in shown:
        draw_line(axes, line, names[line.name], costs)
    axes.set_xlabel(label)
    axes.set_ylabel("top-1 (%)")
    axes.grid(alpha=0.3)
    if shown:
        axes.legend(fontsize="small")
    return saved(figure, path)


def saved(figure: "Figure", path: Path) -> list[Path]:
    """Writes a figure as SVG and PNG, the same bytes every time; returns the files."""
    from matplotlib import rc_context

    files = [path.with_suffix(".svg"), path.with_suffix(".png")]
    with rc_context({"svg.hashsalt": "vssm-bench"}):
        figure.savefig(files[0], metadata={"Date": None})
        figure.savefig(files[1], dpi=200)
    return files


def draw_line(axes: "Axes", line: Line, name: str, costs: Mapping[int, Any]) -> None:
    """Draws the points of a line with their intervals, under a name for the legend."""
    known = [row for row in line.rows if not costs or costs[id(row)] is not None]
    means, below, above = intervals(known)
    x = [costs[id(row)] if costs else sparsity(row) for row in known]
    marker, style = SYMBOLS[line.symbol], "none" if costs else "-"
    axes.errorbar(x, means, yerr=[below, above], label=plain(name), color=line.color, marker=marker, linestyle=style, capsize=2)


def plain(name: str) -> str:
    """A name as matplotlib shows it unchanged: it reads $ as mathematics."""
    return name.replace("$", r"\$")
