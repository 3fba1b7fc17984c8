"""Ranks for tests: a function of a test module, run by several processes that meet as torchrun's would."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from select import select
from threading import Thread
from typing import Any

from tests.support.waiting import PATIENCE_S

ROOT = Path(__file__).parents[2]
NURSERY = "TESTS_NURSERY"  # the variable that names its socket
NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def environment() -> dict[str, str]:
    """That of a single rank."""
    return {key: value for key, value in os.environ.items() if key not in NAMES} | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


STARTED: "list[subprocess.Popen[bytes]]" = []  # its end of a nursery's stdin closes with this process


def start_nursery(folder: Path) -> None:
    """Lets this process's children and itself reach one nursery, which starts when the first of them connects and ends with this process.

    `folder`: empty, for its socket.
    """
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "nursery"))
    listener.listen()
    os.environ[NURSERY] = str(folder / "nursery")
    Thread(target=serve_when_asked, args=[listener], daemon=True).start()


def serve_when_asked(listener: socket.socket) -> None:
    """Starts the process of `tests.support.nursery` when somebody connects."""
    select([listener], [], [])
    command, number = [sys.executable, "-m", "tests.support.nursery"], listener.fileno()
    STARTED.append(subprocess.Popen([*command, str(number)], env=environment(), cwd=ROOT, stdin=subprocess.PIPE, pass_fds=[number]))


class Nursery:
    """A server of the process of `tests.support.nursery`."""

    def __init__(self) -> None:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(os.environ[NURSERY])
        self._requests, self._answers = connection.makefile("w"), connection.makefile("r")

    def ask(self, **request: Any) -> int:
        """The answer to a request; AssertionError where none comes."""
        self._requests.write(json.dumps(request) + "\n")
        self._requests.flush()
        assert select([self._answers], [], [], PATIENCE_S)[0], f"no answer in {PATIENCE_S} s to {request}"
        return int(self._answers.readline())


@cache
def nursery() -> Nursery:
    """That of this process: its first rank waits for it."""
    return Nursery()


@dataclass(frozen=True)
class RankProcess:
    """A rank that was started."""

    pid: int

    def wait(self) -> int:
        """Its exit status, once it has ended; minus the signal that killed it."""
        return nursery().ask(started=self.pid)


KEPT: list[socket.socket] = []  # until this process ends


def own_port() -> int:
    """A port that no other process is given while this one lives. A rank may listen there all the same: neither of the two sockets insists on it."""
    kept = socket.socket()
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    kept.bind(("", 0))
    KEPT.append(kept)
    return int(kept.getsockname()[1])


def start_ranks(function: str, world: int, folder: Path, **arguments: Any) -> list[RankProcess]:
    """One process a rank, each calling `module:function(folder, **arguments)`; a single rank gets no rendezvous variables at all."""
    port = own_port()
    processes = []
    for rank in range(world):
        place = dict(zip(NAMES, map(str, (rank, rank, world, "127.0.0.1", port)), strict=True)) if world > 1 else {}
        task = {"function": function, "folder": str(folder), "arguments": arguments}
        pid = nursery().ask(**task, environment=environment() | place, output=str(output_of(folder, rank)))
        processes.append(RankProcess(pid))
    return processes


def output_of(folder: Path, rank: int) -> Path:
    """What a rank prints."""
    return folder / f"rank-{rank}.out"


def finish_ranks(processes: list[RankProcess], folder: Path) -> list[tuple[int, str]]:
    """Exit status and output of each rank."""
    return [(process.wait(), output_of(folder, rank).read_text()) for rank, process in enumerate(processes)]


def run_ranks(function: str, world: int, folder: Path, **arguments: Any) -> None:
    """Returns when all ranks have ended well; AssertionError with their output where one has not."""
    ends = finish_ranks(start_ranks(function, world, folder, **arguments), folder)
    assert all(status == 0 for status, _ in ends), "\n".join(output for _, output in ends)
