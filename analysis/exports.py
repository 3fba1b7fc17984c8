"""The files beside leaderboard.csv: pareto.csv, coverage.csv, comparisons.csv, and the leaderboard in Markdown and LaTeX."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations, groupby
from typing import Any

from analysis.columns import COLUMNS
from analysis.comparability import differing, same_but_seed
from analysis.csv_files import Value
from analysis.labels import knobs_of, method_name
from analysis.merge import Merged
from analysis.printing import HEADINGS, shown, title
from analysis.rows import Row
from analysis.statistics import differences, holm, paired_p_values, signed_rank_p_values, summarize
from analysis.tuning import sentence
from jobs.experiment.output import printable

FAMILY = 500  # rows of one model and key; up to this number all pairs are compared
COSTS = ("gmacs_nonzero", "infer_gmacs", "latency_ms", "params_nonzero", "file_mb", "train_s")  # columns of the leaderboard of which less is better
PARETO = ("key", "cost", "unit", "value", "top1", "model", "pruning", "rank", "cells")
COVERAGE = ("model", "pruning", "key", "n_expected", "done", "failed", "missing", "seeds_done", "seeds_failed", "seeds_missing", "cells_missing")
COMPARISONS = ("key", "model", "a", "b", "n", "difference", "ci95_low", "ci95_high", "p_t", "p_t_holm", "p_wilcoxon")


def pareto_lines(rows: Sequence[Row]) -> Iterator[dict[str, Value]]:
    """For every key and cost, the rows that no other row beats in both top-1 and the cost, cheapest first."""
    for key, group in groupby(rows, key=lambda row: row.key):
        board = list(group)
        for cost in COSTS:
            for row, value in front(board, [COLUMNS[cost].read(row) for row in board]):
                line = {name: COLUMNS[name].read(row) for name in ("top1", "model", "pruning", "rank", "cells")}
                yield {"key": key.short, "cost": cost, "unit": COLUMNS[cost].unit, "value": value, **line}


def front(rows: Sequence[Row], costs: Sequence[Value]) -> list[tuple[Row, float]]:
    """The Pareto front, cheapest first: each row is more accurate than all cheaper rows. Rows without a top-1 or a cost are left out."""
    known = [(float(cost), -row.top1.mean, row) for row, cost in zip(rows, costs, strict=True) if row.top1 and cost is not None]
    best, points = float("inf"), []
    for cost, error, row in sorted(known, key=lambda point: point[:2]):
        if error < best:
            best = error
            points.append((row, cost))
    return points


def coverage_lines(rows: Sequence[Row], merged: Merged) -> Iterator[dict[str, Value]]:
    """For every row its done, failed and missing seeds; then the rows without an ended cell."""
    planned: dict[str, dict[str, int]] = defaultdict(dict)
    for cell, spec in merged.planned.items():
        planned[same_but_seed(spec)][cell] = spec["seed"]
    ended = {record.id for record in merged.records}
    for row in rows:
        asked = planned.pop(same_but_seed(row.spec), {})
        yield coverage_line(row.model, row.pruning, row, {cell: seed for cell, seed in asked.items() if cell not in ended}, len(asked) or None)
    varied = varied_knobs(merged.planned.values())
    for asked in planned.values():
        if not asked.keys() & ended:
            spec = merged.planned[next(iter(asked))]
            yield coverage_line(str(spec["model"].get("label")), pruning_label(spec["pruning"], varied), None, asked, len(asked))


def varied_knobs(planned: Iterable[Mapping[str, Any]]) -> set[tuple[str, str]]:
    """(method, knob) for every knob with several values in the grid."""
    values: dict[tuple[str, str], set[str]] = defaultdict(set)
    for pruning in (spec["pruning"] for spec in planned):
        for name, value in knobs_of(pruning).items():
            values[method_name(pruning), name].add(repr(value))
    return {knob for knob, different in values.items() if len(different) > 1}


def pruning_label(pruning: Mapping[str, Any], varied: set[tuple[str, str]]) -> str:
    """The label of a planned pruning: the user's, else the method and the knobs that the grid varies."""
    method = method_name(pruning)
    knobs = [f"{name}={value}" for name, value in knobs_of(pruning).items() if (method, name) in varied]
    return str(pruning.get("label") or " ".join([method, *knobs]))


def coverage_line(model: str, pruning: str, row: Row | None, missing: dict[str, int], expected: int | None) -> dict[str, Value]:
    """A line of coverage.csv. `missing`: seeds by cell id."""
    done, failed = (row.done, row.failed) if row else ((), ())
    return {
        "model": model,
        "pruning": pruning,
        "key": row.key.short if row else None,
        "n_expected": expected,
        "done": len(done),
        "failed": len(failed),
        "missing": len(missing) if expected else None,
        "seeds_done": " ".join(str(record.seed) for record in done),
        "seeds_failed": " ".join(str(record.seed) for record in failed),
        "seeds_missing": " ".join(map(str, sorted(missing.values()))),
        "cells_missing": " ".join(sorted(missing)),
    }


def comparison_lines(rows: Sequence[Row]) -> Iterator[dict[str, Value]]:
    """Same-seed differences of top-1 for every two rows of one model and key, a ranked above b. Holm's correction is over a model and key."""
    families: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        families[row.key.short, row.model].append(row)
    for (key, model), family in families.items():
        pairs = [(a, b, differences(a.seeds, b.seeds)) for a, b in compared(family)]
        pairs = [pair for pair in pairs if pair[2]]
        samples = [sample for _, _, sample in pairs]
        p_values = paired_p_values(samples)
        tests = zip(pairs, p_values, holm(p_values), signed_rank_p_values(samples), strict=True)
        for (a, b, sample), p_t, p_holm, p_wilcoxon in tests:
            summary = summarize(sample)
            assert summary is not None  # pairs without a common seed are left out above
            interval = {"difference": summary.mean, "ci95_low": summary.low, "ci95_high": summary.high}
            tests_of_pair = {"p_t": p_t, "p_t_holm": p_holm, "p_wilcoxon": p_wilcoxon}
            yield {"key": key, "model": model, "a": a.pruning, "b": b.pruning, "n": summary.n, **interval, **tests_of_pair}


def compared(family: Sequence[Row]) -> Iterable[tuple[Row, Row]]:
    """Every two rows, best first. Of a large family only each row with the best row and with dense."""
    if len(family) <= FAMILY:
        return combinations(family, 2)
    anchors = {0, next((i for i, row in enumerate(family) if row.is_dense), 0)}
    pairs = {(min(i, anchor), max(i, anchor)) for anchor in anchors for i in range(len(family)) if i != anchor}
    return ((family[a], family[b]) for a, b in sorted(pairs))


LEFT = ("model", "pruning")
SPEEDUPS = {"theory ×": "speedup_theoretical", "structural ×": "speedup_structural", "measured ×": "speedup_measured"}  # headings: columns
PAPER = (*HEADINGS, *SPEEDUPS)


def paper(row: Row) -> tuple[str, ...]:
    """The texts of a row in Markdown and LaTeX, under the headings PAPER: as printed, plus the three speed-ups."""
    values = [COLUMNS[name].read(row) for name in SPEEDUPS.values()]
    return (*shown(row), *("" if value is None else f"{value:.2f}" for value in values))


def markdown(rows: Sequence[Row]) -> str:
    """The leaderboards as Markdown tables, a table per key."""
    differ, parts = differing(row.key for row in rows), []
    for key, board in groupby(rows, key=lambda row: row.key):
        group = list(board)
        lines = [marked(title(key, differ)), ""]
        lines += [f"| {' | '.join(PAPER)} |", f"|{'|'.join('---' if heading in LEFT else '---:' for heading in PAPER)}|"]
        lines += [f"| {' | '.join(map(marked, paper(row)))} |" for row in group]
        parts.append("\n".join(lines) + (f"\n\n{said}" if (said := sentence(group)) else ""))
    return "\n\n".join(parts) + "\n"


def marked(text: str) -> str:
    """`text` with the characters escaped that are special in Markdown or HTML, on one line."""
    return re.sub(r"([\\`*_|~\[\]$])", r"\\\1", printable(text)).replace("&", "&amp;").replace("<", "&lt;")


TEX = {sign: "\\" + sign for sign in "&%$#_{}"}
TEX |= {
    "\\": r"\textbackslash{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}


def latex(rows: Sequence[Row]) -> str:
    """The leaderboards as LaTeX tables (package booktabs), a table per key, with the first tie group in bold."""
    differ, parts = differing(row.key for row in rows), []
    for key, board in groupby(rows, key=lambda row: row.key):
        group = list(board)
        spec = "".join("l" if heading in LEFT else "r" for heading in PAPER)
        remark = [f"% {said}"] if (said := sentence(group)) else []
        head = [f"% {title(key, differ)}", *remark, rf"\begin{{tabular}}{{{spec}}}", r"\toprule", " & ".join(map(tex, PAPER)) + r" \\", r"\midrule"]
        parts.append("\n".join([*head, *map(tex_row, group), r"\bottomrule", r"\end{tabular}"]))
    return "\n\n".join(parts) + "\n"


def tex_row(row: Row) -> str:
    """A line of a tabular."""
    cells = [tex(cell) for cell in paper(row)]
    if row.standing and row.standing.tie == 1:
        cells[HEADINGS.index("top-1 %")] = rf"\textbf{{{cells[HEADINGS.index('top-1 %')]}}}"
    return " & ".join(cells) + r" \\"


def tex(text: str) -> str:
    """`text` with the characters escaped that are special in LaTeX, on one line."""
    return "".join(TEX.get(sign, sign) for sign in printable(text))
