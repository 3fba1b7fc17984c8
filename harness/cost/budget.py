"""A choice of cells that fits a budget of hours: the controls of every model, then whole rows, as many of each model."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from jobs.experiment.cell import Cell
from jobs.experiment.ids import CellId, StageId

CONTROLS = ("dense", "random")  # methods whose rows are always chosen
UNITS = {"m": 1 / 60, "h": 1.0, "d": 24.0}
FORM = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([mhd])", re.IGNORECASE)


class BudgetError(ValueError):
    """A budget that is no time, or that is too small; the message says what would do."""


def hours_of(text: str) -> float:
    """Hours: 200.0 for '200h', 1.5 for '90m', 48.0 for '2d'. Raises BudgetError."""
    match = FORM.fullmatch(text.strip())
    if match is None or not float(match[1]):
        raise BudgetError(f"--budget {text}: expected a time such as 200h, 90m or 2d, or none")
    return float(match[1]) * UNITS[match[2].lower()]


@dataclass(frozen=True, kw_only=True)
class CellRow:
    """The cells that differ in seed alone."""

    model: str
    pruning: str
    control: bool
    cells: tuple[Cell, ...]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Rows that fit a budget, and those that do not. Both in the grid's sequence."""

    chosen: tuple[CellRow, ...]
    left_out: tuple[CellRow, ...]

    @property
    def cells(self) -> frozenset[CellId]:
        """The cells of the chosen rows."""
        return frozenset(cell.id for row in self.chosen for cell in row.cells)


def rows_of(cells: Sequence[Cell]) -> list[CellRow]:
    """The rows of a grid's cells, in its sequence."""
    members: dict[tuple[int, int, int, int, str], list[Cell]] = {}
    for cell in cells:  # the cells of a grid share the objects of their settings
        members.setdefault((id(cell.model), id(cell.method), id(cell.data), id(cell.recipe), cell.pruning), []).append(cell)
    return [
        CellRow(model=row[0].model.label, pruning=row[0].pruning, control=row[0].method.name in CONTROLS, cells=tuple(row))
        for row in members.values()
    ]


@dataclass(kw_only=True)
class Prices:
    """Hours of stages and measurements, each of which is paid once, and of the starts of jobs."""

    paths: Mapping[CellId, Sequence[StageId]]
    stage_h: Mapping[StageId, float]
    cell_h: Mapping[CellId, float]

    def added(self, row: CellRow, paid: set[StageId]) -> float:
        """The hours that a row adds to stages that are paid already."""
        stages = {stage for cell in row.cells for stage in self.paths[cell.id]} - paid
        return sum(self.stage_h[stage] for stage in stages) + sum(self.cell_h[cell.id] for cell in row.cells)

    def pay(self, row: CellRow, paid: set[StageId]) -> float:
        """The hours that a row adds; its stages are paid then."""
        added = self.added(row, paid)
        paid.update(stage for cell in row.cells for stage in self.paths[cell.id])
        return added


def choose(rows: Sequence[CellRow], prices: Prices, budget_h: float, kept: Callable[[CellRow], bool] = lambda row: False) -> Choice:
    """The rows that fit. The controls of every model come first, and rows that are `kept`. Then each model in turn gets its next row that fits.

    The choice ends with the round in which a model that has rows left gets none: of the models that have rows left, none has two more than another.
    Raises BudgetError if the controls alone do not fit, or if there are none and no row fits.
    """
    paid: set[StageId] = set()
    chosen = [row for row in rows if row.control or kept(row)]
    spent_h = sum(prices.pay(row, paid) for row in chosen)
    if spent_h > budget_h:
        parts = {"the dense and random rows of all models": any(row.control for row in chosen), "what is begun": any(map(kept, chosen))}
        what = " and ".join(part for part, there in parts.items() if there)
        raise BudgetError(f"{what} need {spent_h:.3g} hours, and the budget has {budget_h:.3g}: raise it to at least {rounded_up(spent_h)}h")
    names, waiting = set(map(id, chosen)), waiting_rows(rows, chosen)
    full = False
    while waiting and not full:
        for model, left in list(waiting.items()):
            position = next((position for position, row in enumerate(left) if spent_h + prices.added(row, paid) <= budget_h), None)
            if position is None:
                full = True
                continue
            row = left.pop(position)
            spent_h += prices.pay(row, paid)
            names.add(id(row))
            if not left:
                del waiting[model]
    if not names:
        cheapest = min(prices.added(row, set()) for row in rows)
        raise BudgetError(
            f"no row fits: the cheapest needs {cheapest:.3g} hours, and the budget has {budget_h:.3g}: raise it to {rounded_up(cheapest)}h"
        )
    return Choice(chosen=tuple(row for row in rows if id(row) in names), left_out=tuple(row for row in rows if id(row) not in names))


def waiting_rows(rows: Sequence[CellRow], chosen: Sequence[CellRow]) -> dict[str, list[CellRow]]:
    """The rows that are not chosen yet, by model."""
    names, waiting = set(map(id, chosen)), dict[str, list[CellRow]]()
    for row in rows:
        if id(row) not in names:
            waiting.setdefault(row.model, []).append(row)
    return waiting


def rounded_up(hours: float) -> str:
    """A number of hours with three digits or more, not below `hours`."""
    digits = max(0, 2 - math.floor(math.log10(hours))) if hours > 0 else 0
    return f"{math.ceil(hours * 10**digits) / 10**digits:.{digits}f}"
