"""What the budget panel of the page looks up."""

import random
from pathlib import Path

from analysis.budget import BUDGETS, decide, parse_budget
from analysis.panel import accuracy, board_data, contenders, panel_data, text
from tests.support.records import fake_grid, fake_record, rows_of


def test_the_panel_has_names_costs_with_texts_and_phrases() -> None:
    rows = rows_of(*(fake_record(97.0, seed=seed, file_bytes=500_000) for seed in range(3)), fake_record(None, pruning="magnitude-0.9"))
    data = panel_data([("abc", list(enumerate(rows)))], [Path("runs/a"), Path("runs/my b")])
    assert data["command"] == "python -m analysis runs/a 'runs/my b' --budget" and set(data["phrases"]) == {"only", "alone", "tied", "few"}
    board = data["boards"]["abc"]
    assert (board["numbers"], board["names"], board["p"]) == ([0], ["vim_micro, dense"], {0: []})  # a row without a result is no answer
    assert {name: (cost["values"], cost["texts"]) for name, cost in board["costs"].items()} == {
        "latency": ([5.0], ["5 ms"]),
        "macs": ([12e6], ["12M"]),
        "params": ([170_000], ["170k"]),
        "size": ([0.5], ["0.5 MB"]),
        "hours": ([0.5], ["0.5 h"]),
    }


def test_a_cost_that_was_not_measured_is_said() -> None:
    assert text(BUDGETS["latency"], None) == "not measured"


def test_an_accuracy_has_its_interval_or_too_few_seeds() -> None:
    three, single = rows_of(*(fake_record(97.0 + seed, seed=seed) for seed in range(3)), fake_record(60.0, model="b"))
    assert (accuracy(three), accuracy(single)) == ("top-1 98.00% (93.68 to 99.39; 3 seeds)", "top-1 60.00% (too few seeds: 1)")


def test_no_row_is_a_board_of_its_own() -> None:
    assert board_data([])["names"] == [] and board_data([])["p"] == {}


def test_the_contenders_are_the_rows_that_some_budget_makes_the_best() -> None:
    drawn = random.Random(0)
    for _ in range(50):
        costs = [tuple(drawn.choice((None, 1, 2, 3)) for _ in range(3)) for _ in range(8)]
        best = set()
        for bounds in ((a, b, c) for a in (None, 1, 2, 3) for b in (None, 1, 2, 3) for c in (None, 1, 2, 3)):
            fitting = [i for i, row in enumerate(costs) if all(b is None or (v is not None and v <= b) for v, b in zip(row, bounds, strict=True))]
            best.update(fitting[:1])
        assert contenders(costs) == sorted(best)


def test_the_comparisons_of_a_contender_are_those_of_the_shell() -> None:
    rows = rows_of(*fake_grid())
    (p,) = board_data(list(enumerate(rows)))["p"].values()  # all costs are equal: the first row is the best of every budget
    answer = decide(rows, parse_budget("latency<=5"))
    assert answer is not None and sum(value * 9 < 0.05 for value in p) == len(answer.worse) and len(p) == 9
