"""Records -> rows. A row is the cells that differ in seed alone; rows with equal comparability keys are ranked together."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from statistics import fmean, median
from typing import Any

from analysis.comparability import Key, digest, place_of, same_but_seed, unlabelled
from analysis.merge import Merged
from analysis.statistics import Standing, Summary, differences, holm, paired_p_values, standings, summarize
from jobs.experiment.records import Metrics, Record


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the leaderboard. `done` and `failed` are sorted by seed."""

    key: Key
    model: str
    pruning: str
    done: tuple[Record, ...]
    failed: tuple[Record, ...]
    expected: int | None = None  # seeds that the grid asks for
    rank: int | None = None  # within `key`, from 1; None without a number
    dense: "Row | None" = None  # the dense row of the same model and key
    p_dense: float | None = None  # paired t test against dense, after Holm's correction over the rows of the key
    standing: Standing | None = None  # rank interval and tie group; from 3 seeds on

    @property
    def spec(self) -> dict[str, Any]:
        """What was asked of the first cell; of the others all but the seed is the same."""
        return (*self.done, *self.failed)[0].spec

    @property
    def is_dense(self) -> bool:
        """Whether the row is its model's control."""
        return self.method == "dense"

    @property
    def method(self) -> str:
        """The pruning method's name, without its knobs."""
        return str(self.spec.get("pruning", {}).get("method", self.pruning))

    @property
    def epochs(self) -> int | None:
        """Training epochs that a cell took; None where none is done."""
        return metrics(self.done[0]).epochs if self.done else None

    @cached_property
    def seeds(self) -> dict[int, float]:
        """Top-1 in percent of every seed."""
        return {record.seed: metrics(record).top1 for record in self.done}

    @cached_property
    def top1(self) -> Summary | None:
        """Top-1 in percent over seeds."""
        return summarize(list(self.seeds.values()))

    @cached_property
    def against_dense(self) -> Summary | None:
        """Same-seed differences of top-1 to dense, in percentage points; None for dense itself and where no seed is shared."""
        return summarize(differences(self.seeds, self.dense.seeds)) if self.dense else None

    @property
    def failures(self) -> str:
        """How many cells failed, by kind: `2 diverged, 1 killed`."""
        kinds = Counter(record.failure.kind if record.failure else "unknown" for record in self.failed)
        return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))

    def mean(self, read: Callable[[Metrics], float | None]) -> float | None:
        """The mean over seeds of what `read` takes from the metrics; None where a seed lacks it."""
        return over(fmean, self.done, read)

    def median(self, read: Callable[[Metrics], float | None]) -> float | None:
        """The median over seeds: for times, which a busy machine skews."""
        return over(median, self.done, read)


def over(average: Callable[[list[float]], float], records: Sequence[Record], read: Callable[[Metrics], float | None]) -> float | None:
    """The average over records; None where there is none, or one lacks the value."""
    values = [read(metrics(record)) for record in records]
    known = [value for value in values if value is not None]
    return average(known) if known and len(known) == len(values) else None


def metrics(record: Record) -> Metrics:
    """The metrics of a record that is done (merge lets no other pass as done)."""
    assert record.metrics is not None
    return record.metrics


def make_rows(merged: Merged) -> tuple[Row, ...]:
    """The leaderboard: key by key, that of most cells first, in each the best mean top-1 first, then the fewest MACs; rows without a number last."""
    expected = Counter(same_but_seed(spec) for spec in merged.planned.values())
    groups: dict[tuple[str, Key], list[Record]] = defaultdict(list)
    failed: list[Record] = []
    for record in merged.records:
        if record.status == "done":
            groups[place_of(record)].append(record)
        else:
            failed.append(record)
    lost = place_failures(failed, groups.keys())
    rows = [
        make_row(spec, key, groups.get((spec, key), []), lost.get((spec, key), []), expected.get(spec))
        for spec, key in [*groups, *(lost.keys() - groups.keys())]
    ]
    return judged(ranked(with_dense(rows)))


def place_failures(failed: Iterable[Record], known: Iterable[tuple[str, Key]]) -> dict[tuple[str, Key], list[Record]]:
    """The failed cells by row: that of their own other seeds, else one of their own under a key that shares data and recipe."""
    siblings: dict[str, Key] = {}
    neighbours: dict[tuple[str, str], Key] = {}
    for spec, key in known:
        siblings.setdefault(spec, key)
        neighbours.setdefault((key.data, key.recipe), key)
    placed: dict[tuple[str, Key], list[Record]] = defaultdict(list)
    for record in failed:
        spec, own = place_of(record)
        placed[spec, siblings.get(spec) or neighbours.get((own.data, own.recipe)) or own].append(record)
    return placed


def make_row(spec: str, key: Key, done: Sequence[Record], failed: Sequence[Record], expected: int | None) -> Row:
    """A row without a rank."""
    first = (*done, *failed)[0]
    by_seed = sorted(done, key=lambda record: record.seed), sorted(failed, key=lambda record: record.seed)
    return Row(key=key, model=first.model, pruning=first.pruning, done=tuple(by_seed[0]), failed=tuple(by_seed[1]), expected=expected)


def with_dense(rows: Sequence[Row]) -> list[Row]:
    """The rows, each pruned one with the dense row that it is compared with: one that took the same epochs, else the one that took fewest."""
    dense: dict[tuple[Key, str], list[Row]] = {}
    for row in sorted((row for row in rows if row.is_dense), key=lambda row: row.epochs or 0):
        dense.setdefault((row.key, model_of(row)), []).append(row)

    def beside(row: Row) -> Row | None:
        there = dense.get((row.key, model_of(row)), [])
        return next((one for one in there if one.epochs == row.epochs), there[0] if there else None)

    return [row if row.is_dense else replace(row, dense=beside(row)) for row in rows]


def ranked(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows in the leaderboard's order, the key with most cells first, with ranks counted within each key; equal means and MACs share a rank."""
    cells = Counter(row.key for row in rows for _ in row.done)
    scored = [(criterion(row), row) for row in rows]
    scored.sort(key=lambda one: (-cells[one[1].key], one[1].key.short, *one[0], one[1].model, one[1].pruning))
    placed: list[Row] = []
    position, last = 0, None
    for score, row in scored:
        before = placed[-1] if placed and placed[-1].key == row.key else None
        position = position + 1 if before else 1
        tied = before is not None and score == last
        placed.append(replace(row, rank=None if not row.done else before.rank if before and tied else position))
        last = score
    return tuple(placed)


def judged(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows with what their noise allows to be said: p against dense, rank interval, tie group; each key by itself."""
    told: list[Row] = []
    for _, group in groupby(rows, key=lambda row: row.key):
        board = list(group)
        against = [differences(row.seeds, row.dense.seeds) if row.dense else [] for row in board]
        places = iter(standings([row.seeds for row in board if row.done]))
        for row, p in zip(board, holm(paired_p_values(against)), strict=True):
            told.append(replace(row, p_dense=p, standing=next(places) if row.done else None))
    return tuple(told)


def criterion(row: Row) -> tuple[float, float, float]:
    """What rows are sorted by, smallest first: mean top-1 (most first), MACs, MACs of non-zero weights."""
    if row.top1 is None:
        return float("inf"), float("inf"), float("inf")
    return -row.top1.mean, row.mean(structural_macs) or 0.0, row.mean(lambda m: m.macs_nonzero) or 0.0


def structural_macs(metrics: Metrics) -> int:
    """MACs of the saved network as it stands; a record older than the field is of a network that nothing had cut."""
    return metrics.macs if metrics.macs_structural is None else metrics.macs_structural


def model_of(row: Row) -> str:
    """What two rows share when their network is the same."""
    return digest(unlabelled(row.spec.get("model")))
