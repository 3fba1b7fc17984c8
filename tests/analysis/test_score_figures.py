"""The figures of scores across models and data sets."""

import html
import math
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from analysis import score_figures
from analysis.score_figures import WIDEST, colors_of, curve, draw_profiles, draw_ranks, profile_figure, rank_figure, write_score_figures
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


def test_the_figures_for_papers_have_the_ranks_and_the_profiles() -> None:
    assert GROUP.ranking is not None
    ranks, profiles = Figure().add_subplot(), Figure().add_subplot()
    draw_ranks(ranks, GROUP)
    draw_profiles(profiles, GROUP)
    bars = [container.lines[0] for container in ranks.containers]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in bars] == [(1.5, 0), (2.0, 1), (2.5, 2)] and ranks.yaxis_inverted()
    assert [tick.get_text() for tick in ranks.get_yticklabels()] == ["<a>", "b", "c"]
    assert {line.get_label(): list(line.get_ydata()) for line in profiles.lines} == {
        html.unescape(trace["text"]): trace["y"] for trace in profile_figure(GROUP)["data"]
    }


def test_each_strength_with_a_ranking_has_two_files_of_each_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_figures, "saved", lambda figure, path: [path])
    written = write_score_figures([GROUP, replace(GROUP, ranking=None, level=0.1)], tmp_path)
    assert [path.name for path in written] == ["scores-50-ranks", "scores-50-profiles"]


def test_long_names_are_short_beside_an_axis_and_whole_where_the_mouse_is() -> None:
    errors = {line: {"a" * 200: 1.0, "b": 2.0, "c": 3.0} for line in "xy"}
    trace = rank_figure(replace(GROUP, errors=errors, ranking=rank(errors)))["data"][0]
    assert trace["y"] == ["a" * 19 + "…" + "a" * 12] and trace["text"] == "a" * 200
