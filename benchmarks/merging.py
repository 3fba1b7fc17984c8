"""A table: seconds to merge 100,000 records for the first time, to merge them again, and to make rows. `python -m benchmarks.merging [records]`

Prints wall and CPU seconds of fresh processes, beside plain json.loads of every file, all in one run on this machine. The files are in a temporary
folder.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from models.closed_pipe import ends_with_its_reader

RECORD: dict[str, Any] = {  # 1 KB, as small as a record can be: no layers, short spec
    "schema_version": 1,
    "grid": "bench",
    "model": "vim_micro",
    "pruning": "dense",
    "status": "done",
    "stages": ["a"],
    "weights_sha256": "a" * 64,
    "started": "2026-01-01T00:00:00+00:00",
    "finished": "2026-01-01T00:01:00+00:00",
}
ENVIRONMENT = {
    "commit": "b" * 40,
    "dirty": False,
    "python": "3.11",
    "versions": {"torch": "2"},
    "host": "n",
    "cpu": "c",
    "gpu": None,
    "ranks": 1,
    "threads": 2,
}
METRICS: dict[str, Any] = {"top5": None, "layers": {}, "collapsed": [], "uncounted_ops": {}, "flops_convention": "macs"}
NUMBERS = """test_loss test_samples val_top1 train_loss params params_nonzero sparsity_prunable sparsity_all macs macs_nonzero throughput_img_per_s
latency_ms throughput_batch peak_memory_bytes file_bytes epochs train_s train_img_per_s"""
PLAIN = """
import glob, json
records = [json.loads(open(path, "rb").read()) for path in glob.glob({run!r} + "/cells/*/record.json")]
assert len(records) == {count}
"""
MERGE = """
from pathlib import Path
from analysis.merge import collect
assert len(collect([Path({run!r})], Path({store!r})).entries) == {count}
"""
TABLES = """
from pathlib import Path
from analysis.merge import merge
from analysis.rows import make_rows
make_rows(merge([Path({run!r})], Path({store!r})))
"""


def write_run(run: Path, count: int) -> int:
    """Makes a run folder of `count` records, five seeds per row. Returns the bytes of a record."""
    for i in range(count):
        folder = run / "cells" / f"{i:012x}"
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(text := json.dumps(record(i), separators=(",", ":")))
        os.utime(folder / "record.json", (1, 1))
    return len(text)


def record(i: int) -> dict[str, Any]:
    """Record number i."""
    spec = {
        "model": {"name": "vim_micro"},
        "pruning": {"method": "magnitude" if i >= 5 else "dense", "number": i // 5},
        "data": {"source": "digits"},
        "recipe": {"batch_size": 64},
    }
    metrics = METRICS | dict.fromkeys(NUMBERS.split(), 1) | {"top1": 50 + i % 1000 / 20}
    environment = ENVIRONMENT | {"loader": "ffcv", "scan": "cpu", "data_sha256": "d"}
    return RECORD | {"id": f"{i:012x}", "seed": i % 5, "spec": spec | {"seed": i % 5}, "metrics": metrics, "environment": environment}


def timed(code: str) -> str:
    """Wall and CPU seconds of a fresh interpreter that runs `code`."""
    wall, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, "-c", code], check=True)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return f"{time.perf_counter() - wall:7.2f} {cpu:7.2f}"


@ends_with_its_reader
def main(count: int) -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory() as folder:
        run, store = Path(folder, "run"), Path(folder, "store")
        size = write_run(run, count)
        where = {"run": str(run), "store": str(store), "count": count}
        print(f"{count:,} records of {size:,} bytes, {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}")
        print(f"{'':34}   wall     CPU  (s)")
        steps = [
            ("plain json.loads of every file", PLAIN),
            ("first merge (reads, validates)", MERGE),
            ("next merge (nothing new)", MERGE),
            ("next merge, objects and rows too", TABLES),
        ]
        for name, code in steps:
            print(f"{name:34}{timed(code.format(**where))}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
