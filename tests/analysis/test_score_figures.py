"""The figures of scores across models and data sets."""

import math

import pytest

from analysis.score_figures import WIDEST, colors_of, curve, profile_figure, rank_figure
from analysis.scores import Group, rank

ERRORS = {"x": {"<a>": 2.0, "b": 4.0, "c": 3.0}, "y": {"<a>": 9.0, "b": 3.0, "c": math.inf}}
GROUP = Group(
    level=0.5,
    macs_left=dict.fromkeys(("<a>", "b", "c"), 0.5),
    errors=ERRORS,
    least=dict.fromkeys("xy", 0.01),
    ranking=rank(ERRORS),
    left_out=(),
    why_not="",
)


def test_bars_reach_half_the_critical_difference_to_both_sides() -> None:
    figure = rank_figure(GROUP)
    assert GROUP.ranking is not None
    assert {trace["error_x"]["value"] for trace in figure["data"]} == {GROUP.ranking.critical_difference / 2}
    assert {trace["name"]: trace["x"] for trace in figure["data"]} == {"&lt;a&gt;": [1.5], "b": [2.0], "c": [2.5]}
    assert figure["layout"]["yaxis"]["categoryarray"] == ["&lt;a&gt;", "b", "c"]


def test_a_profile_steps_where_a_problem_comes_within_tau() -> None:
    assert curve([1.0, 3.0], 4.0) == {"x": [1.0, 3.0, 4.0], "y": [0.5, 1.0, 1.0]}
    assert curve([2.0, math.inf], 3.0) == {"x": [1.0, 2.0, 3.0], "y": [0.0, 0.5, 0.5]}


def test_profiles_end_together_and_have_the_colours_of_the_ranks() -> None:
    figure = profile_figure(GROUP)
    assert [trace["x"][-1] for trace in figure["data"]] == pytest.approx([3.15] * 3)
    assert [trace["line"]["color"] for trace in figure["data"]] == [trace["marker"]["color"] for trace in rank_figure(GROUP)["data"]]
    assert list(colors_of(GROUP)) == ["<a>", "b", "c"] and WIDEST > 3.15
