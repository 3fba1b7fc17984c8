"""Tables of methods by family, in Markdown, from a finished run of benchmarks/grids/field.yaml: python -m benchmarks.field runs/field

Of every row: mean and standard deviation of the test accuracy over seeds, in percent; the non-zero multiply-adds, and the measured throughput, beside
those of the family's dense network.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from analysis.csv_files import read_csv
from analysis.exports import marked
from jobs.experiment.output import replace_unencodable
from models.closed_pipe import ends_with_its_reader

Row = Mapping[str, str]  # of leaderboard.csv


def accuracy(row: Row, dense: Row) -> str:
    """Mean and standard deviation; bold where the interval of the difference to dense does not reach below -1 point."""
    text = f"{float(row['top1']):.1f}" + (f" ± {float(row['top1_std']):.1f}" if row["top1_std"] else "")
    low = row["top1_vs_dense_ci95_low"]
    return f"**{text}**" if low and float(low) > -1 else text


def left(row: Row, dense: Row) -> str:
    """The multiply-adds of weights that are not zero, as a part of dense's."""
    return f"{float(row['gmacs_nonzero']) / float(dense['gmacs_nonzero']):.2f}"


def faster(row: Row, dense: Row) -> str:
    """Measured throughput beside dense in the same run."""
    return f"{float(row['speedup_measured']):.2f}" if row["speedup_measured"] else ""


def table(rows: Iterable[Row], shown: Callable[[Row, Row], str]) -> list[str]:
    """The lines of one table; a field is empty where a method does not work for a family."""
    known = {(row["pruning"], row["model"]): row for row in rows if row["top1"]}
    models, methods = (list(dict.fromkeys(key[part] for key in known)) for part in (1, 0))
    lines = ["| method | " + " | ".join(map(marked, models)) + " |", "|---|" + "---:|" * len(models)]
    for method in sorted(methods, key=lambda name: (name != "dense", name)):
        cells = [shown(known[method, model], known["dense", model]) if (method, model) in known else "" for model in models]
        lines.append(f"| {marked(method)} | {' | '.join(cells)} |")
    return lines


@ends_with_its_reader
def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the tables of a run folder."""
    replace_unencodable()
    run = Path((sys.argv[1:] if arguments is None else arguments)[0])
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "analysis", str(run), "-o", folder], check=True, stdout=subprocess.DEVNULL)
        rows = sorted(read_csv(Path(folder) / "leaderboard.csv"), key=lambda row: row["model"])
    titles = {"Top-1, %": accuracy, "Multiply-adds of weights that are not zero, of dense": left, "Measured throughput, times dense": faster}
    for title, shown in titles.items():
        print("\n".join([f"### {title}", "", *table(rows, shown), ""]))


if __name__ == "__main__":
    main()
