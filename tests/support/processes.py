"""Ranks for tests: a function of a test module, run by several processes that meet as torchrun's would."""

import importlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LIMIT_S = 1200


def start_ranks(function: str, world: int, folder: Path, **arguments: Any) -> list[subprocess.Popen[bytes]]:
    """One process a rank, each calling `module:function(folder, **arguments)`; a single rank gets no rendezvous variables at all."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    base = {key: value for key, value in os.environ.items() if key not in names} | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    processes = []
    for rank in range(world):
        place = dict(zip(names, map(str, (rank, rank, world, "127.0.0.1", port)), strict=True)) if world > 1 else {}
        command = [sys.executable, "-m", "tests.support.processes", function, str(folder), json.dumps(arguments)]
        with output_of(folder, rank).open("w") as output:
            processes.append(subprocess.Popen(command, env=base | place, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT))
    return processes


def output_of(folder: Path, rank: int) -> Path:
    """What a rank prints."""
    return folder / f"rank-{rank}.out"


def finish_ranks(processes: list[subprocess.Popen[bytes]], folder: Path) -> list[tuple[int, str]]:
    """Exit status and output of each rank."""
    return [(process.wait(LIMIT_S), output_of(folder, rank).read_text()) for rank, process in enumerate(processes)]


def run_ranks(function: str, world: int, folder: Path, **arguments: Any) -> None:
    """Returns when all ranks have ended well; AssertionError with their output where one has not."""
    ends = finish_ranks(start_ranks(function, world, folder, **arguments), folder)
    assert all(status == 0 for status, _ in ends), "\n".join(output for _, output in ends)


if __name__ == "__main__":
    module, name = sys.argv[1].split(":")
    getattr(importlib.import_module(module), name)(Path(sys.argv[2]), **json.loads(sys.argv[3]))
