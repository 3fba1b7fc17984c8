"""A table of methods by sparsity, in Markdown, from a finished run of benchmarks/grids/methods.yaml: python -m benchmarks.methods runs/methods

Mean and standard deviation of the test accuracy over seeds, in percent. Bold: the mean is above that of random pruning at the same level, `random`
for methods that mask weights, `structured random` for those that remove units.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from analysis.csv_files import read_csv
from analysis.exports import marked
from jobs.experiment.output import replace_unencodable
from models.closed_pipe import ends_with_its_reader

LEVELS = (50, 80, 90, 95)
UNITS = ("structured", "early bird")  # compared with `structured random`
Row = Mapping[str, str]  # of leaderboard.csv


def by_method(rows: Iterable[Row]) -> dict[str, dict[int, Row]]:
    """Rows by method and level, from labels such as 'magnitude 90%'. Other labels, such as dense, have level 0."""
    methods: dict[str, dict[int, Row]] = {}
    for row in rows:
        name, _, level = row["pruning"].rpartition(" ")
        whole = level.removesuffix("%")
        leveled = level.endswith("%") and whole.isdecimal()
        methods.setdefault(name if leveled else row["pruning"], {})[int(whole) if leveled else 0] = row
    return methods


def shown(row: Row | None, baseline: Row | None) -> str:
    """A cell of the table."""
    if row is None or not row["top1"]:
        return ""
    text = f"{float(row['top1']):.1f}" + (f" ± {float(row['top1_std']):.1f}" if row["top1_std"] else "")
    better = baseline is not None and baseline["top1"] and float(row["top1"]) > float(baseline["top1"])
    return f"**{text}**" if better else text


def table(rows: Iterable[Row]) -> list[str]:
    """The lines of the table, the best at 90% first."""
    methods = by_method(rows)
    dense = methods.pop("dense", {}).get(0)
    lines = ["| method | " + " | ".join(f"{level}%" for level in LEVELS) + " | epochs at 90% |", "|---|" + "---:|" * (len(LEVELS) + 1)]
    if dense:
        lines.append(f"| dense | {shown(dense, None)} |" + " |" * (len(LEVELS) - 1) + f" {dense['epochs']} |")
    at_90 = {name: float(levels[90]["top1"] or 0) if 90 in levels else 0.0 for name, levels in methods.items()}
    for name in sorted(methods, key=lambda name: -at_90[name]):
        baseline = {} if name == "structured random" else methods.get("structured random" if name in UNITS else "random", {})
        cells = [shown(methods[name].get(level), baseline.get(level)) for level in LEVELS]
        lines.append(f"| {marked(name)} | {' | '.join(cells)} | {methods[name].get(90, {}).get('epochs', '')} |")
    return lines


@ends_with_its_reader
def main() -> None:
    """Prints the table of a run folder."""
    replace_unencodable()
    run = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "analysis", str(run), "-o", folder], check=True, stdout=subprocess.DEVNULL)
        rows = read_csv(Path(folder) / "leaderboard.csv")
    seeds = sorted({int(row["n"]) for row in rows})
    print("\n".join([*table(rows), "", f"{', '.join(map(str, seeds))} seeds a row; keys {', '.join(sorted({row['key'] for row in rows}))}"]))


if __name__ == "__main__":
    main()
