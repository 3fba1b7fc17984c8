"""Figures of the scores across models and data sets, for the report: mean ranks with the critical difference, and performance profiles."""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from analysis.figures import COLORS
from analysis.scores import Group, profile, ratios

WIDEST = 100.0  # times the smallest error: the end of a profile's axis


def rank_figure(group: Group) -> dict[str, Any]:
    """Mean ranks as a Plotly figure, best on top, each with half the critical difference to both sides: bars that overlap are not told apart."""
    assert group.ranking
    ranking, colors = group.ranking, colors_of(group)
    half = ranking.critical_difference / 2
    data = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": html.escape(name),
            "x": [mean],
            "y": [html.escape(name)],
            "error_x": {"type": "constant", "value": half, "thickness": 2, "width": 6},
            "marker": {"color": colors[name], "size": 10},
            "hovertemplate": f"%{{y}}: mean rank {mean:.2f}<extra></extra>",
        }
        for name, mean in zip(ranking.names, ranking.mean_ranks, strict=True)
    ]
    y = {"type": "category", "autorange": "reversed", "categoryarray": [html.escape(name) for name in ranking.names], "categoryorder": "array"}
    layout = {"xaxis": {"title": {"text": "mean rank (1: best)"}}, "yaxis": y, "showlegend": False, "height": 140 + 36 * len(ranking.names)}
    return {"data": data, "layout": layout}


def profile_figure(group: Group) -> dict[str, Any]:
    """Performance profiles as a Plotly figure: the fraction of problems on which an entrant's error is at most tau times the smallest."""
    assert group.ranking
    multiples, colors = ratios(group), colors_of(group)
    end = min(WIDEST, 1.05 * max(value for values in multiples.values() for value in values if math.isfinite(value)))
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": html.escape(name),
            **curve(multiples[name], max(end, 1.1)),
            "line": {"shape": "hv", "color": colors[name], "width": 2},
            "hovertemplate": "%{fullData.name}: %{y:.0%} within %{x:.3g} times<extra></extra>",
        }
        for name in group.ranking.names
    ]
    x = {"type": "log", "title": {"text": "τ: error / smallest error"}, "tickvals": [1, 1.2, 1.5, 2, 3, 5, 10, 20, 50, 100]}
    y = {"title": {"text": "problems within τ"}, "range": [-0.03, 1.03], "tickformat": ".0%"}
    return {"data": data, "layout": {"xaxis": x, "yaxis": y, "showlegend": True, "height": 400}}


def curve(multiples: Sequence[float], end: float) -> dict[str, list[float]]:
    """The steps of a profile from tau = 1 to `end`."""
    taus = sorted({1.0, *(value for value in multiples if value <= end), end})
    return {"x": taus, "y": [profile(multiples, tau) for tau in taus]}


def colors_of(group: Group) -> Mapping[str, str]:
    """A colour for each entrant, the same in both figures."""
    assert group.ranking
    return {name: COLORS[i % len(COLORS)] for i, name in enumerate(group.ranking.names)}
