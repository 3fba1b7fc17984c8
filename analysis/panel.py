"""The budget panel of the report: its sliders, the costs of the rows, and the comparisons that the page looks up."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis.budget import BUDGETS, PHRASES, Cost, interval_in_words
from analysis.pairs import p_values, samples_of
from analysis.printing import counted
from analysis.rows import Row


def panel_data(boards: Sequence[tuple[str, Sequence[tuple[int, Row]]]], runs: Sequence[Path]) -> dict[str, Any]:
    """What the page's script needs. `boards`: (key, numbered rows, best first)."""
    return {
        "phrases": PHRASES,
        "command": f"python -m analysis {shlex.join(map(str, runs))} --budget",
        "boards": {key: board_data([pair for pair in rows if pair[1].top1]) for key, rows in boards},
    }


def board_data(numbered: Sequence[tuple[int, Row]]) -> dict[str, Any]:
    """The rows with a result, their costs, and p of each row that may be the best against every row below it."""
    rows = [row for _, row in numbered]
    costs = {name: [cost.read(row) for row in rows] for name, cost in BUDGETS.items()}
    samples = samples_of(rows) if rows else None
    return {
        "numbers": [number for number, _ in numbered],
        "names": [f"{row.model}, {row.pruning}" for row in rows],
        "accuracies": [accuracy(row) for row in rows],
        "costs": {name: {"values": costs[name], "texts": [text(cost, value) for value in costs[name]]} for name, cost in BUDGETS.items()},
        "p": {i: p_values(samples, i, range(i + 1, len(rows))) for i in contenders(list(zip(*costs.values(), strict=True)))} if samples else {},
    }


def text(cost: Cost, value: float | None) -> str:
    """A cost with its unit."""
    return "not measured" if value is None else f"{counted(value)} {cost.unit}".strip()


def accuracy(row: Row) -> str:
    """The accuracy of a row with its interval."""
    return f"top-1 {row.top1.mean:.2f}% ({interval_in_words(row)})" if row.top1 else ""


def contenders(costs: Sequence[tuple[float | None, ...]]) -> list[int]:
    """The rows that are the best within some budget: those than which no row above is as cheap in every cost. `costs`: by row, best first."""
    chosen: list[int] = []
    for i, own in enumerate(costs):
        if not any(all(as_cheap(costs[j][k], value) for k, value in enumerate(own)) for j in chosen):
            chosen.append(i)
    return chosen


def as_cheap(theirs: float | None, ours: float | None) -> bool:
    """True if every limit that lets `ours` in lets `theirs` in too. A cost that was not measured is let in by no limit."""
    return ours is None or (theirs is not None and theirs <= ours)
