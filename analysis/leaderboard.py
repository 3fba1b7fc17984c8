"""Records -> all tables and the report, written to one folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.baseline import BESIDE, beside_lines
from analysis.columns import CELLS, LEADERBOARD, cell_line
from analysis.csv_files import write_csv
from analysis.exports import COMPARISONS, COVERAGE, PARETO, comparison_lines, coverage_lines, latex, markdown, pareto_lines
from analysis.figures import write_figures
from analysis.merge import merge
from analysis.printing import printed
from analysis.report import report
from analysis.rows import Row, make_rows
from analysis.score_figures import write_score_figures
from analysis.scores import SCORES, groups, score_lines
from jobs.experiment.files import write_text

if TYPE_CHECKING:
    from rich.console import Group


STORE = ".records.store"  # in the output folder


@dataclass(frozen=True, kw_only=True)
class Published:
    """The files that were written, the rows behind them, and the table to print."""

    leaderboard: Path
    cells: Path
    files: tuple[Path, ...]  # all, these two first
    rows: tuple[Row, ...]
    table: "Group"


def publish(runs: Sequence[Path], out: Path, beside: Path | None = None, figures: bool = False) -> Published:
    """Writes the tables and the report of all run folders to `out`.

    `beside`: a results CSV in timm's format. `figures`: also write the plots as files. Raises AnalysisError if the folders hold no record, or if
    `beside` is not such a CSV.
    """
    merged = merge(runs, store=out / STORE)
    rows = make_rows(merged)
    scored = groups(rows)
    lines = ({column.name: column.read(row) for column in LEADERBOARD} for row in rows)
    cells = (cell_line(record, row) for row in rows for record in sorted(row.done + row.failed, key=lambda record: record.seed))
    files = [
        write_csv(out / "leaderboard.csv", [column.name for column in LEADERBOARD], lines),
        write_csv(out / "cells.csv", CELLS, cells),
        write_csv(out / "coverage.csv", COVERAGE, coverage_lines(rows, merged)),
        write_csv(out / "pareto.csv", PARETO, pareto_lines(rows)),
        write_csv(out / "comparisons.csv", COMPARISONS, comparison_lines(rows)),
        write_csv(out / "scores.csv", SCORES, score_lines(scored)),
        write_text(out / "leaderboard.md", markdown(rows)),
        write_text(out / "leaderboard.tex", latex(rows)),
    ]
    files.append(write_text(out / "report.html", report(rows, merged, runs)))
    if figures:
        files += write_figures(rows, out / "figures") + write_score_figures(scored, out / "figures")
    if beside:
        files.append(write_csv(out / "beside.csv", BESIDE, beside_lines(rows, beside)))
    return Published(leaderboard=files[0], cells=files[1], files=tuple(files), rows=rows, table=printed(rows, merged))
