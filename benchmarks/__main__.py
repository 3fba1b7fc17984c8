"""`make bench`: the figures that benchmarks/README.md promises, measured on this machine, one script after another.

demo        python -m harness.launch grid.yaml in an empty folder: seconds, accuracies
startup     a cell from process start to first step, by part
planning    10,000 cells to ids, stages and jobs
others      scan, steps, global_threshold, enforcement, merging, folder_identity, preparing, loaders, second_order, sensitivity:
            `python -m benchmarks.NAME`, minutes each; methods: a run
"""

import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from analysis.csv_files import read_csv
from jobs.experiment.output import replace_unencodable
from jobs.worker.environment import cpu_name
from models.closed_pipe import ends_with_its_reader

ROOT = Path(__file__).resolve().parent.parent


@ends_with_its_reader
def main() -> None:
    """Prints a section for each script."""
    replace_unencodable()
    print(f"{cpu_name()}, {platform.system()} {platform.release()}, Python {platform.python_version()}", flush=True)
    section("demo")
    demo()
    for name in ("startup", "planning"):
        section(name)
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], cwd=ROOT, check=True)


def section(name: str) -> None:
    """Prints a heading."""
    print(f"\n## {name}", flush=True)


def demo() -> None:
    """Prints the seconds of the quickstart, and its accuracies."""
    with tempfile.TemporaryDirectory() as folder:
        began_s = time.monotonic()
        subprocess.run([sys.executable, "-m", "harness.launch", str(ROOT / "grid.yaml")], cwd=folder, stdout=subprocess.DEVNULL, check=True)
        print(f"{'quickstart, set-up done':30} {time.monotonic() - began_s:6.1f} s")
        for row in read_csv(Path(folder) / "runs" / "quickstart" / "leaderboard.csv"):
            print(f"{row['model']:14} {row['pruning']:15} top-1 {float(row['top1']):6.2f}%  n {row['n']}  sparsity {float(row['sparsity']):.0%}")


if __name__ == "__main__":
    main()
