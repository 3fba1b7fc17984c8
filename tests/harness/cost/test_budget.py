"""The choice of rows: hand-made prices, and what holds for all prices."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cost.budget import BudgetError, CellRow, Choice, Prices, choose, hours_of, rounded_up, rows_of
from jobs.experiment.ids import CellId, StageId
from tests.support.jobs import small_grid


@pytest.mark.parametrize(("text", "hours"), [("200h", 200), ("90m", 1.5), ("2d", 48), (" 1.5 H ", 1.5), (".5d", 12)])
def test_a_budget_is_a_time(text: str, hours: float) -> None:
    assert hours_of(text) == hours


@pytest.mark.parametrize("text", ["", "200", "h", "0h", "-1h", "1w", "none", "1e3h", "inf h", "2h30m"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(BudgetError, match="expected a time such as 200h, 90m or 2d"):
        hours_of(text)


class Cell:
    """A cell of which nothing but its id matters."""

    def __init__(self, name: str) -> None:
        self.id = CellId(name)


def row(model: str, pruning: str, seeds: int = 1) -> CellRow:
    cells = tuple(Cell(f"{model}-{pruning}-{seed}") for seed in range(seeds))
    return CellRow(model=model, pruning=pruning, control=pruning in ("dense", "random"), cells=cells)  # type: ignore[arg-type]


def prices(rows: list[CellRow], shared_h: float = 0.0, **own_h: float) -> Prices:
    """Each cell has a stage of its own that costs what its row does, or 1; cells of one model and seed share another one."""
    paths = {cell.id: (StageId(f"trunk-{each.model}-{seed}"), StageId(f"own-{cell.id}")) for each in rows for seed, cell in enumerate(each.cells)}
    stage_h = {path[0]: shared_h for path in paths.values()}
    stage_h |= {paths[cell.id][1]: own_h.get(f"{each.model}_{each.pruning}", 1.0) for each in rows for cell in each.cells}
    return Prices(paths=paths, stage_h=stage_h, cell_h=dict.fromkeys(paths, 0.0))


def names(rows: tuple[CellRow, ...]) -> list[str]:
    return [f"{row.model} {row.pruning}" for row in rows]


def test_controls_come_first_then_each_model_in_turn() -> None:
    rows = [row(model, pruning) for model in ("a", "b") for pruning in ("dense", "x", "y")]
    known = prices(rows, shared_h=10.0)
    assert names(choose(rows, known, 22).chosen) == ["a dense", "b dense"]
    assert names(choose(rows, known, 24).chosen) == ["a dense", "a x", "b dense", "b x"], "in the grid's sequence"
    choice = choose(rows, known, 25)
    assert names(choice.chosen) == ["a dense", "a x", "a y", "b dense", "b x"] and names(choice.left_out) == ["b y"]
    assert not choose(rows, known, 26).left_out


def test_a_row_has_all_its_seeds_or_none() -> None:
    rows = [row("a", "dense", 3), row("a", "x", 3)]
    assert names(choose(rows, prices(rows), 5).chosen) == ["a dense"] and names(choose(rows, prices(rows), 6).chosen) == ["a dense", "a x"]


def test_a_model_whose_next_row_is_too_dear_gets_one_that_fits() -> None:
    rows = [row("a", "dense"), row("a", "x"), row("a", "y")]
    assert names(choose(rows, prices(rows, a_x=9.0), 3).chosen) == ["a dense", "a y"]


def test_a_model_that_can_have_no_more_ends_the_choice_for_all() -> None:
    rows = [row("a", "dense"), *(row("a", str(number)) for number in range(5)), row("b", "dense"), row("b", "0")]
    assert names(choose(rows, prices(rows, b_0=100.0), 50).chosen) == ["a dense", "a 0", "b dense"]


def test_a_budget_below_the_controls_is_refused_with_what_they_need() -> None:
    rows = [row("a", "dense"), row("a", "random"), row("b", "dense"), row("a", "x")]
    with pytest.raises(BudgetError, match=r"dense and random rows of all models need 3 hours, and the budget has 2\.9: raise it to at least 3\.00h"):
        choose(rows, prices(rows), 2.9)


def test_without_controls_the_cheapest_row_is_the_least() -> None:
    rows = [row("a", "x"), row("a", "y")]
    with pytest.raises(BudgetError, match=r"the cheapest needs 0\.7 hours, and the budget has 0\.5: raise it to 0\.700h"):
        choose(rows, prices(rows, a_y=0.7), 0.5)


def test_rows_that_are_begun_stay_and_are_paid() -> None:
    rows = [row("a", "dense"), row("a", "x"), row("a", "y")]
    choice = choose(rows, prices(rows), 2, kept=lambda row: row.pruning == "y")
    assert names(choice.chosen) == ["a dense", "a y"]
    with pytest.raises(BudgetError, match="the dense and random rows of all models and what is begun need 2 hours"):
        choose(rows, prices(rows), 1.5, kept=lambda row: row.pruning == "y")


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=5), min_size=1, max_size=4), st.integers(0, 5), st.integers(0, 120))
def test_whatever_the_prices_the_choice_fits_and_is_balanced(costs: list[list[int]], shared: int, budget: int) -> None:
    rows = [row(f"m{number}", "dense" if not place else f"p{place}") for number, own in enumerate(costs) for place in range(len(own))]
    own_h = {f"m{number}_{'dense' if not place else f'p{place}'}": cost for number, own in enumerate(costs) for place, cost in enumerate(own)}
    known = prices(rows, shared, **own_h)
    least = sum(own[0] + shared for own in costs)
    if budget < least:
        with pytest.raises(BudgetError):
            choose(rows, known, budget)
        return
    choice = choose(rows, known, budget)
    spent = shared * len(costs) + sum(own_h[f"{row.model}_{row.pruning}"] for row in choice.chosen)
    taken = {f"m{number}": sum(row.model == f"m{number}" for row in choice.chosen) for number in range(len(costs))}
    unfinished = [count for model, count in taken.items() if any(row.model == model for row in choice.left_out)]
    assert spent <= budget and len(choice.chosen) + len(choice.left_out) == len(rows)
    assert {row.model for row in choice.chosen if row.control} == set(taken)
    if unfinished:
        assert max(taken.values()) - min(unfinished) <= 1
    else:
        assert not choice.left_out


def test_the_rows_of_a_grid_differ_in_more_than_seeds(tmp_path: Path) -> None:
    rows = rows_of(small_grid(tmp_path).cells)
    assert [(row.pruning, row.control, len(row.cells)) for row in rows] == [
        ("dense", True, 2),
        ("magnitude(0.5)", False, 2),
        ("magnitude(0.9)", False, 2),
    ]
    assert Choice(chosen=tuple(rows[:1]), left_out=tuple(rows[1:])).cells == {cell.id for cell in rows[0].cells}


@given(st.floats(1e-6, 1e9))
def test_a_figure_that_is_asked_for_suffices(hours: float) -> None:
    text = f"{rounded_up(hours)}h"
    assert hours <= hours_of(text) <= hours * 1.02
