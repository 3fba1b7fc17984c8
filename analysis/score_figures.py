"""Figures of the scores across models and data sets, for the report (Plotly) and for papers (matplotlib): mean ranks with the critical difference,
and performance profiles.
"""

import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.figures import COLORS, LEGEND, fitting, plain, saved
from analysis.scores import Group, percent_left, profile, ratios

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDEST = 100.0  # times the smallest error: the end of a profile's axis
BESIDE_AXIS = 32  # characters of a name beside an axis: on a phone they leave half of the width
TICKS = (1, 1.2, 1.5, 2, 3, 5, 10, 20, 50, 100)
TAU, WITHIN, MEAN_RANK = "τ: error / smallest error", "problems within τ", "mean rank (1: best)"


def rank_figure(group: Group) -> dict[str, Any]:
    """Mean ranks as a Plotly figure, best on top, each with half the critical difference to both sides: bars that overlap are not told apart."""
    assert group.ranking
    ranking, colors, shown = group.ranking, colors_of(group), fitting(group.ranking.names, BESIDE_AXIS)
    half = ranking.critical_difference / 2
    data = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": html.escape(name),
            "x": [mean],
            "y": [html.escape(shown[name])],
            "text": html.escape(name),
            "error_x": {"type": "constant", "value": half, "thickness": 2, "width": 6},
            "marker": {"color": colors[name], "size": 10},
            "hovertemplate": f"%{{text}}: mean rank {mean:.2f}<extra></extra>",
        }
        for name, mean in zip(ranking.names, ranking.mean_ranks, strict=True)
    ]
    y = {"type": "category", "autorange": "reversed", "categoryarray": [html.escape(shown[name]) for name in ranking.names], "categoryorder": "array"}
    layout = {"xaxis": {"title": {"text": MEAN_RANK}}, "yaxis": y, "showlegend": False, "height": 140 + 36 * len(ranking.names)}
    return {"data": data, "layout": layout}


def profile_figure(group: Group) -> dict[str, Any]:
    """Performance profiles as a Plotly figure: the fraction of problems on which an entrant's error is at most tau times the smallest."""
    assert group.ranking
    multiples, colors, shown = ratios(group), colors_of(group), fitting(group.ranking.names, LEGEND)
    end = end_of(multiples)
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": html.escape(shown[name]),
            "text": html.escape(name),
            **curve(multiples[name], end),
            "line": {"shape": "hv", "color": colors[name], "width": 2},
            "hovertemplate": "%{text}: %{y:.0%} within %{x:.3g} times<extra></extra>",
        }
        for name in group.ranking.names
    ]
    x = {"type": "log", "title": {"text": TAU}, "tickvals": list(TICKS)}
    y = {"title": {"text": WITHIN}, "range": [-0.03, 1.03], "tickformat": ".0%"}
    return {"data": data, "layout": {"xaxis": x, "yaxis": y, "showlegend": True, "height": 400}}


def end_of(multiples: Mapping[str, Sequence[float]]) -> float:
    """The tau at which all profiles end: behind the last step, and not too far."""
    return max(1.1, min(WIDEST, 1.05 * max(value for values in multiples.values() for value in values if math.isfinite(value))))


def curve(multiples: Sequence[float], end: float) -> dict[str, list[float]]:
    """The steps of a profile from tau = 1 to `end`."""
    taus = sorted({1.0, *(value for value in multiples if value <= end), end})
    return {"x": taus, "y": [profile(multiples, tau) for tau in taus]}


def colors_of(group: Group) -> Mapping[str, str]:
    """A colour for each entrant, the same in both figures."""
    assert group.ranking
    return {name: COLORS[i % len(COLORS)] for i, name in enumerate(group.ranking.names)}


def write_score_figures(groups: Sequence[Group], folder: Path) -> list[Path]:
    """Writes the mean ranks and the profiles of each strength that has a ranking as SVG and PNG. Returns the files."""
    from matplotlib.figure import Figure

    written = []
    for group in groups:
        for name, drawn in (("ranks", draw_ranks), ("profiles", draw_profiles)) if group.ranking else ():
            figure = Figure(figsize=(6.4, 4.2), layout="constrained")
            drawn(figure.add_subplot(), group)
            written += saved(figure, folder / f"scores-{percent_left(group).rstrip('%')}-{name}")
    return written


def draw_ranks(axes: "Axes", group: Group) -> None:
    """Draws mean ranks, best on top, each with half the critical difference to both sides."""
    assert group.ranking
    ranking, colors, shown = group.ranking, colors_of(group), fitting(group.ranking.names, BESIDE_AXIS)
    for height, (name, mean) in enumerate(zip(ranking.names, ranking.mean_ranks, strict=True)):
        axes.errorbar(mean, height, xerr=ranking.critical_difference / 2, color=colors[name], marker="o", capsize=3)
    axes.set_yticks(range(len(ranking.names)), [plain(shown[name]) for name in ranking.names])
    axes.invert_yaxis()
    axes.set_xlabel(MEAN_RANK)
    axes.grid(alpha=0.3, axis="x")


def draw_profiles(axes: "Axes", group: Group) -> None:
    """Draws the profiles as steps."""
    assert group.ranking
    multiples, colors, shown = ratios(group), colors_of(group), fitting(group.ranking.names, LEGEND)
    end = end_of(multiples)
    for name in group.ranking.names:
        steps = curve(multiples[name], end)
        axes.step(steps["x"], steps["y"], where="post", label=plain(shown[name]), color=colors[name])
    axes.set_xscale("log")
    axes.set_xticks([tick for tick in TICKS if tick <= end], [f"{tick:g}" for tick in TICKS if tick <= end])
    axes.set_xticks([], minor=True)
    axes.set_xlabel(TAU)
    axes.set_ylabel(WITHIN)
    axes.set_ylim(-0.03, 1.03)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
