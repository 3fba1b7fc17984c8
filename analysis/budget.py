"""The best row within a budget, the rows that cannot be told from it, and how sure that is.

The best row is the one of the best mean top-1. Each other row that fits is tested against it (`analysis.pairs`), and its p-value is multiplied by the
number of rows compared (Bonferroni). With 95% confidence the rows that are not rejected at 5% hold, with the best one, the row that is truly best:
it is lost only if one of its comparisons, at most that many, goes wrong (Gupta 1965, Technometrics 7(2); Hsu 1981, Annals of Statistics 9(5)).
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import groupby

from analysis.columns import COLUMNS
from analysis.comparability import differing
from analysis.merge import AnalysisError
from analysis.pairs import p_values, samples_of
from analysis.printing import counted, number_of, shortened, title
from analysis.rows import Row, structural_macs
from analysis.statistics import LEVEL, SETTLED
from jobs.experiment.output import printable

LIMIT = re.compile(r"\s*([A-Za-z]\w*)\s*(<=|>=)\s*(\S+)\s*")
EXAMPLE = "latency_ms<=5,params<=10e6"
LISTED = 20  # rows that the shell names
PHRASES = {
    "only": "It is the only row that fits.",
    "alone": "Sure to {sure}%: every other row that fits and can be compared ({judged}) is less accurate, beyond the noise of seeds.",
    "tied": "Not settled: {tied} cannot be told from it, of {judged} compared. The best is one of these {group}, sure to 95%.",
    "few": f"Too few seeds: {{few}} cannot be compared with it. That takes {SETTLED} seeds of each.",
}  # the page has the same


@dataclass(frozen=True, kw_only=True)
class Cost:
    """A cost that a budget may limit by a plain name."""

    meaning: str
    unit: str
    read: Callable[[Row], float | None]


def number(column: str) -> Callable[[Row], float | None]:
    """A function that reads a column of numbers."""

    def read(row: Row) -> float | None:
        value = COLUMNS[column].read(row)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    return read


def hours(row: Row) -> float | None:
    """Hours of a GPU, or of a CPU core, of the whole training."""
    on_gpu = row.mean(lambda m: m.train_gpu_h)
    return row.mean(lambda m: m.train_cpu_h) if on_gpu is None else on_gpu


BUDGETS = {  # of the network as it stands: zeros count
    "latency": Cost(meaning="latency of an image", unit="ms", read=number("latency_ms")),
    "macs": Cost(meaning="multiply-adds", unit="", read=lambda row: row.mean(structural_macs)),
    "params": Cost(meaning="parameters", unit="", read=number("params")),
    "size": Cost(meaning="file size", unit="MB", read=number("file_mb")),
    "hours": Cost(meaning="training hours", unit="h", read=hours),
}


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A bound on a cost or on a column of leaderboard.csv."""

    name: str
    sign: str  # <= or >=
    bound: float
    read: Callable[[Row], float | None]

    def __str__(self) -> str:
        return f"{self.name}{self.sign}{self.bound:.6g}"

    def holds(self, row: Row) -> bool:
        """True if the row has a value within the bound."""
        value = self.read(row)
        return value is not None and (value <= self.bound if self.sign == "<=" else value >= self.bound)


def parse_budget(text: str) -> tuple[Limit, ...]:
    """The limits of a text such as `latency_ms<=5,params<=10e6`. Raises AnalysisError, which says what is valid."""
    return tuple(parse_limit(part) for part in text.split(","))


def parse_limit(part: str) -> Limit:
    """A limit. Raises AnalysisError."""
    parts = LIMIT.fullmatch(part)
    if parts is None:
        raise AnalysisError(f"cannot read {part.strip()!r} in --budget: write a column, <= or >=, and a number, such as {EXAMPLE}")
    name, sign, given = parts.groups()
    try:
        bound = float(given)
    except ValueError:
        bound = math.nan
    if not math.isfinite(bound):
        raise AnalysisError(f"{given!r} in --budget is not a number: write a bound of {name} such as 5 or 10e6")
    return Limit(name=name, sign=sign, bound=bound, read=reader(name))


def reader(name: str) -> Callable[[Row], float | None]:
    """The function that reads a cost or a column of numbers. Raises AnalysisError for any other name."""
    if name in BUDGETS and name not in COLUMNS:
        return BUDGETS[name].read
    if name in COLUMNS:
        return number(name)
    close = get_close_matches(name, [*BUDGETS, *COLUMNS], n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(close)}?" if close else "."
    raise AnalysisError(f"unknown column {name!r} in --budget{hint} Valid are {', '.join(BUDGETS)}, and the columns of numbers in leaderboard.csv")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The best row that fits; the others that fit: told from it, not told from it, and not to be compared for want of seeds."""

    best: Row
    worse: tuple[Row, ...]
    tied: tuple[Row, ...]
    few: tuple[Row, ...]
    sure: float  # confidence that no row that can be compared is as good as the best; 1 without such a row

    @property
    def sentences(self) -> list[str]:
        """How sure the answer is, in words."""
        judged, tied = len(self.worse) + len(self.tied), len(self.tied)
        said = []
        if judged:
            values = {"sure": percent(self.sure), "judged": number_of(judged, "row"), "tied": number_of(tied, "row"), "group": tied + 1}
            said.append(PHRASES["tied" if tied else "alone"].format(**values))
        if self.few:
            said.append(PHRASES["few"].format(few=number_of(len(self.few), "row")))
        return said or [PHRASES["only"]]


def percent(fraction: float) -> str:
    """A confidence below 100% with a digit after the point, rounded down."""
    tenths = min(999, math.floor(1000 * fraction))
    return f"{tenths // 10}.{tenths % 10}"


def decide(rows: Sequence[Row], limits: Sequence[Limit]) -> Answer | None:
    """The answer among the rows of one key, best first; None if no row with a result fits."""
    every = [row for row in rows if row.top1]
    fitting = [i for i, row in enumerate(every) if all(limit.holds(row) for limit in limits)]
    if not fitting:
        return None
    best, *others = (every[i] for i in fitting)
    p = p_values(samples_of(every), fitting[0], fitting[1:])
    judged = sum(value is not None for value in p)
    corrected = [None if value is None else min(1.0, judged * value) for value in p]
    return Answer(
        best=best,
        worse=tuple(row for row, value in zip(others, corrected, strict=True) if value is not None and value < 1 - LEVEL),
        tied=tuple(row for row, value in zip(others, corrected, strict=True) if value is not None and value >= 1 - LEVEL),
        few=tuple(row for row, value in zip(others, corrected, strict=True) if value is None),
        sure=1 - max((value for value in corrected if value is not None), default=0.0),
    )


def nearest(rows: Sequence[Row], limits: Sequence[Limit]) -> Row | None:
    """The row that oversteps its limits by the smallest factor; None if every row lacks a result or a value."""
    known = [row for row in rows if row.top1 and all(limit.read(row) is not None for limit in limits)]
    return min(known, key=lambda row: max(excess(limit, row) for limit in limits), default=None)


def excess(limit: Limit, row: Row) -> float:
    """How far the row is over the limit, as a fraction of the bound; 0 or less within it."""
    over = (limit.read(row) or 0.0) - limit.bound
    return (over if limit.sign == "<=" else -over) / (abs(limit.bound) or 1.0)


def answer_lines(rows: Sequence[Row], limits: Sequence[Limit]) -> Iterator[str]:
    """The answer for each key as lines of text. Raises AnalysisError for a limit on a column of texts."""
    for limit in limits:
        if limit.name in COLUMNS and any(isinstance(COLUMNS[limit.name].read(row), str) for row in rows):
            raise AnalysisError(f"{limit.name} is a column of texts, and a budget limits numbers, such as {EXAMPLE}")
    differ = differing(row.key for row in rows)
    for key, group in groupby(rows, key=lambda row: row.key):
        board = list(group)
        yield title(key, differ)
        yield from (f"  {line}" for line in lines_of_board(board, limits))


def lines_of_board(rows: Sequence[Row], limits: Sequence[Limit]) -> Iterator[str]:
    """The answer among the rows of one key."""
    answer, budget = decide(rows, limits), ", ".join(map(str, limits))
    if answer is None:
        if not any(row.top1 for row in rows):
            yield "no row has a result"
            return
        yield f"no row fits {budget}"
        close = nearest(rows, limits)
        if close:
            needs = ", ".join(f"{limit.name} {counted(limit.read(close))}" for limit in limits if not limit.holds(close))
            yield f"nearest: {named(close)}. It needs {needs}."
        else:
            yield f"no row has a value of each of {', '.join(dict.fromkeys(limit.name for limit in limits))}"
        return
    others = len(answer.worse) + len(answer.tied) + len(answer.few)
    yield f"{number_of(others + 1, 'row')} of {len(rows)} within {budget}"
    yield f"best: {named(answer.best)}; " + ", ".join(f"{limit.name} {counted(limit.read(answer.best))}" for limit in limits)
    yield from answer.sentences
    for heading, listed in (("cannot be told from it:", answer.tied), ("too few seeds:", answer.few)):
        if listed:
            yield heading
            yield from (f"  {line}" for line in shortened([named(row) for row in listed], LISTED))


def named(row: Row) -> str:
    """Model, method and accuracy of a row."""
    assert row.top1
    return printable(f"{row.model}, {row.pruning}: top-1 {row.top1.mean:.2f}% ({interval_in_words(row)})")


def interval_in_words(row: Row) -> str:
    """The 95% interval of a row's accuracy and its number of seeds, or that they are too few."""
    assert row.top1
    return f"too few seeds: {row.top1.n}" if row.top1.low is None else f"{row.top1.low:.2f} to {row.top1.high:.2f}; {row.top1.n} seeds"
