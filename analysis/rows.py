"""Records -> rows. A row is the cells that differ only in the seed. Rows with equal comparability keys are ranked together."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from statistics import fmean, median
from typing import Any

from analysis.comparability import Key, digest, row_and_key, same_but_seed, unlabelled
from analysis.labels import Labels, labels_of_row, method_name
from analysis.merge import Merged
from analysis.statistics import Standing, Summary, differences, holm, paired_p_values, standings, summarize, summarize_accuracies
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
    rank: int | None = None  # within `key`, from 1; None without a top-1
    dense: "Row | None" = None  # the dense row of the same model and key
    p_dense: float | None = None  # paired t test against dense, after Holm's correction over the rows of the key
    standing: Standing | None = None  # rank interval and tie group; from 3 seeds on

    @property
    def spec(self) -> dict[str, Any]:
        """The spec of the first cell. Those of the other cells differ only in the seed."""
        return (*self.done, *self.failed)[0].spec

    @property
    def is_dense(self) -> bool:
        """True if the row is its model's control."""
        return self.method == "dense"

    @property
    def method(self) -> str:
        """The pruning method's name, without its knobs."""
        pruning = self.spec.get("pruning", {})
        return method_name(pruning) if "method" in pruning else self.pruning

    @property
    def epochs(self) -> int | None:
        """Training epochs of a cell; None if no cell is done."""
        return metrics(self.done[0]).epochs if self.done else None

    @cached_property
    def seeds(self) -> dict[int, float]:
        """Top-1 in percent of every seed."""
        return {record.seed: metrics(record).top1 for record in self.done}

    @cached_property
    def top1(self) -> Summary | None:
        """Top-1 in percent over seeds."""
        return summarize_accuracies(list(self.seeds.values()), metrics(self.done[0]).test_samples) if self.done else None

    @cached_property
    def against_dense(self) -> Summary | None:
        """Same-seed differences of top-1 to dense, in percentage points; None for dense itself, and without a common seed."""
        return summarize(differences(self.seeds, self.dense.seeds)) if self.dense else None

    @property
    def failures(self) -> str:
        """The number of failed cells by kind: `2 diverged, 1 killed`."""
        kinds = Counter(record.failure.kind if record.failure else "unknown" for record in self.failed)
        return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))

    def mean(self, read: Callable[[Metrics], float | None]) -> float | None:
        """The mean over seeds of a value that `read` takes from the metrics; None if a seed lacks it."""
        return over(fmean, self.done, read)

    def median(self, read: Callable[[Metrics], float | None]) -> float | None:
        """The median over seeds, for times, which a busy machine skews; None if a seed lacks the value."""
        return over(median, self.done, read)


def over(average: Callable[[list[float]], float], records: Sequence[Record], read: Callable[[Metrics], float | None]) -> float | None:
    """The average over records; None without records, or if a record lacks the value."""
    values = [read(metrics(record)) for record in records]
    known = [value for value in values if value is not None]
    return average(known) if known and len(known) == len(values) else None


def metrics(record: Record) -> Metrics:
    """The metrics of a record that is done: `merge` skips done records without metrics."""
    assert record.metrics is not None
    return record.metrics


def make_rows(merged: Merged) -> tuple[Row, ...]:
    """The leaderboard. The key with the most cells comes first; within a key the best mean top-1, then the fewest MACs; rows without a top-1 last."""
    rows_planned = {cell: same_but_seed(spec) for cell, spec in merged.planned.items()}
    expected = Counter(rows_planned.values())
    labels = {row: merged.labels[cell] for cell, row in reversed(rows_planned.items()) if cell in merged.labels}
    groups: dict[tuple[str, Key], list[Record]] = defaultdict(list)
    failed: list[Record] = []
    for record in merged.records:
        if record.status == "done":
            groups[row_and_key(record)].append(record)
        else:
            failed.append(record)
    lost = failures_by_row(failed, groups.keys())
    rows = [
        make_row(key, groups.get((spec, key), []), lost.get((spec, key), []), expected.get(spec), (merged.labels, labels.get(spec)))
        for spec, key in [*groups, *(lost.keys() - groups.keys())]
    ]
    return judged(ranked(with_dense(rows)))


def failures_by_row(failed: Iterable[Record], known: Iterable[tuple[str, Key]]) -> dict[tuple[str, Key], list[Record]]:
    """The failed cells by row. A failed cell joins the row of its other seeds, or else a row of its own, under a key with its data and recipe."""
    siblings: dict[str, Key] = {}
    neighbours: dict[tuple[str, str], Key] = {}
    for spec, key in known:
        siblings.setdefault(spec, key)
        neighbours.setdefault((key.data, key.recipe), key)
    rows: dict[tuple[str, Key], list[Record]] = defaultdict(list)
    for record in failed:
        spec, own = row_and_key(record)
        rows[spec, siblings.get(spec) or neighbours.get((own.data, own.recipe)) or own].append(record)
    return rows


def make_row(
    key: Key, done: Sequence[Record], failed: Sequence[Record], expected: int | None, labels: tuple[Mapping[str, Labels], Labels | None]
) -> Row:
    """A row without a rank. `labels`: by cell, and of the row."""
    by_seed = [sorted(records, key=lambda record: record.seed) for records in (done, failed)]
    model, pruning = labels_of_row([*by_seed[0], *by_seed[1]], *labels)
    return Row(key=key, model=model, pruning=pruning, done=tuple(by_seed[0]), failed=tuple(by_seed[1]), expected=expected)


def with_dense(rows: Sequence[Row]) -> list[Row]:
    """The rows, each pruned row with the dense row to compare it with: one of the same epochs, or else the one of the fewest epochs."""
    dense: dict[tuple[Key, str], list[Row]] = {}
    for row in sorted((row for row in rows if row.is_dense), key=lambda row: row.epochs or 0):
        dense.setdefault((row.key, model_of(row)), []).append(row)

    def beside(row: Row) -> Row | None:
        controls = dense.get((row.key, model_of(row)), [])
        return next((control for control in controls if control.epochs == row.epochs), controls[0] if controls else None)

    return [row if row.is_dense else replace(row, dense=beside(row)) for row in rows]


def ranked(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows sorted as in `make_rows`, with their ranks within each key. Rows of equal means and MACs share a rank."""
    cells = Counter(row.key for row in rows for _ in row.done)
    scored = [(criterion(row), row) for row in rows]
    scored.sort(key=lambda pair: (-cells[pair[1].key], pair[1].key.short, *pair[0], pair[1].model, pair[1].pruning))
    result: list[Row] = []
    position, last = 0, None
    for score, row in scored:
        before = result[-1] if result and result[-1].key == row.key else None
        position = position + 1 if before else 1
        tied = before is not None and score == last
        result.append(replace(row, rank=None if not row.done else before.rank if before and tied else position))
        last = score
    return tuple(result)


def judged(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows with the statistics of their noise, key by key: p against dense, rank interval, tie group."""
    result: list[Row] = []
    for _, group in groupby(rows, key=lambda row: row.key):
        board = list(group)
        against = [differences(row.seeds, row.dense.seeds) if row.dense else [] for row in board]
        noise = iter(standings([row.seeds for row in board if row.done]))
        for row, p in zip(board, holm(paired_p_values(against)), strict=True):
            result.append(replace(row, p_dense=p, standing=next(noise) if row.done else None))
    return tuple(result)


def criterion(row: Row) -> tuple[float, float, float]:
    """The values by which rows are sorted, smallest first: negative mean top-1, MACs, MACs of non-zero weights."""
    if row.top1 is None:
        return float("inf"), float("inf"), float("inf")
    return -row.top1.mean, row.mean(structural_macs) or 0.0, row.mean(lambda m: m.macs_nonzero) or 0.0


def structural_macs(metrics: Metrics) -> int:
    """MACs of the saved network as it stands. A record without the field is of a network of its full size."""
    return metrics.macs if metrics.macs_structural is None else metrics.macs_structural


def model_of(row: Row) -> str:
    """The hash that rows of the same network share."""
    return digest(unlabelled(row.spec.get("model")))
