"""Comparisons with other leaderboards: regressions since an older leaderboard.csv, and timm's results beside ours."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.columns import COLUMNS
from analysis.csv_files import Value, read_csv
from analysis.merge import AnalysisError
from analysis.rows import Row
from analysis.statistics import LEVEL, holm

BESIDE = (
    "source",
    "model",
    "pruning",
    "img_size",
    "top1",
    "top5",
    "param_count",
    "infer_gmacs",
    "infer_samples_per_sec",
    "infer_step_time",
    "infer_batch_size",
)


@dataclass(frozen=True, kw_only=True)
class Change:
    """A row then and now. `p`: one-sided Welch t test that the accuracy fell, Holm-corrected over the rows; None with too few seeds."""

    key: str
    model: str
    pruning: str
    before: float
    now: float | None
    p: float | None
    verdict: str  # regressed | within noise | not judged: ... | failed now | no longer there


def changes(rows: Sequence[Row], baseline: Path) -> list[Change]:
    """The changes of every row of an older leaderboard.csv that had a number. Raises AnalysisError if the file is not a leaderboard.csv."""
    old = [line for line in read_table(baseline, ("key", "model", "pruning", "top1", "top1_std", "n")) if line["top1"]]
    ours = {(row.key.short, row.model, row.pruning): row for row in rows}
    pairs = [(line, ours.get((line["key"], line["model"], line["pruning"]))) for line in old]
    p_values = holm([p_of_fall(line, row) for line, row in pairs])
    return [change(line, row, p) for (line, row), p in zip(pairs, p_values, strict=True)]


def p_of_fall(line: Mapping[str, str], row: Row | None) -> float | None:
    """p of Welch's t test, from means and standard deviations, that the row is not below the line; None if either has fewer than 2 seeds."""
    if row is None or row.top1 is None or row.top1.std is None or not line["top1_std"]:
        return None
    from scipy.stats import ttest_ind_from_stats

    mean, std, n = float(line["top1"]), float(line["top1_std"]), int(line["n"])
    if std == 0 and row.top1.std == 0:
        return 0.0 if row.top1.mean < mean else 1.0
    test = ttest_ind_from_stats(row.top1.mean, row.top1.std, row.top1.n, mean, std, n, equal_var=False, alternative="less")
    return float(test.pvalue)


def change(line: Mapping[str, str], row: Row | None, p: float | None) -> Change:
    """The row then and now, with a verdict."""
    if row is None:
        verdict = "no longer there under this key"
    elif row.top1 is None:
        verdict = "failed now"
    elif p is None:
        verdict = "not judged: fewer than 2 seeds then or now"
    else:
        verdict = "regressed" if p < 1 - LEVEL else "within noise"
    now = row.top1.mean if row and row.top1 else None
    return Change(key=line["key"], model=line["model"], pruning=line["pruning"], before=float(line["top1"]), now=now, p=p, verdict=verdict)


def regressed(compared: Sequence[Change]) -> bool:
    """True if a row fell beyond noise, or has lost its number."""
    return any(change.verdict in ("regressed", "failed now") for change in compared)


def beside_lines(rows: Sequence[Row], published: Path) -> Iterator[dict[str, Value]]:
    """Our rows and those of a results CSV in timm's format, best top-1 first. They are not ranked, because their data and recipes differ from ours.

    Raises AnalysisError if the file lacks timm's columns.
    """
    ours = [beside_line("ours", {name: COLUMNS[name].read(row) for name in BESIDE[1:]}) for row in rows if row.top1]
    theirs = [beside_line(published.name, line) for line in read_table(published, ("model", "top1"))]
    yield from sorted([*ours, *theirs], key=lambda line: -float(line["top1"] or 0))


def beside_line(source: str, values: Mapping[str, Value]) -> dict[str, Value]:
    """A line of beside.csv."""
    return {name: source if name == "source" else values.get(name) for name in BESIDE}


def read_table(path: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    """The lines of a CSV with a header. Raises AnalysisError if it cannot be read, lacks a column, or has a top1 that is not a number."""
    try:
        lines = read_csv(path)
        missing = [name for name in needed if not lines or name not in lines[0]]
        if missing:
            raise AnalysisError(f"{path} has no column {', '.join(missing)}; it must have {', '.join(needed)}")
        for line in lines:
            float(line["top1"] or 0)
    except (OSError, ValueError, csv.Error) as error:
        raise error if isinstance(error, AnalysisError) else AnalysisError(f"cannot read {path}: {error}") from error
    return lines
