"""A process that has imported what ranks need, and forks a rank for each request: it starts in a tenth of a second instead of four.

A rank is a process as any other: it has its own environment and output, ends as an interpreter does, and can be killed. The nursery has one thread
and has computed nothing when it forks. All workers of the tests share one: it forks a server for each that connects to the socket whose number it was
started with. A server reads a request a line and answers each with a line, until its worker ends. The nursery ends where its stdin does.
"""

import gc
import importlib
import json
import os
import signal
import socket
import sys
from pathlib import Path
from select import select
from typing import Any, TextIO

from models.torchvision_shim import load_timm

WARM = (
    *("torch", "torch._dynamo", "triton", "torch_pruning", "deepspeed", "deepspeed.module_inject.auto_ep_layer", "deepspeed.runtime.zero.stage3"),
    *("jobs.data.loaders", "jobs.data.ffcv_loader", "jobs.train.stage", "pytest", "hypothesis"),
)


def connection_of(listener: socket.socket) -> socket.socket | None:
    """Forks a server for each connection until stdin ends. In a server: returns its connection."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for servers
    while True:
        ready, _, _ = select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            return None
        connection, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return connection
        connection.close()


def serve(requests: TextIO, answers: TextIO) -> dict[str, Any] | None:
    """Answers requests until there are none left. In a forked process: returns what it is to run."""
    for line in requests:
        request = json.loads(line)
        answer = request["started"] if "started" in request else os.fork()
        if answer == 0:
            return request
        if "started" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["started"], 0)[1])
        print(answer, file=answers, flush=True)
    return None


def run(function: str, folder: str, arguments: dict[str, Any]) -> None:
    """Calls `module:function(folder, **arguments)`."""
    module, name = function.split(":")
    getattr(importlib.import_module(module), name)(Path(folder), **arguments)


def become(environment: dict[str, str], output: str) -> None:
    """Gives this process an environment, an empty input, and a file for what it prints."""
    os.environ.clear()
    os.environ.update(environment)
    for source, flags, targets in ((os.devnull, os.O_RDONLY, (0,)), (output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, (1, 2))):
        opened = os.open(source, flags)
        for target in targets:
            os.dup2(opened, target)
        os.close(opened)


def task_of(listener: socket.socket) -> dict[str, Any] | None:
    """What this process is to run, where it is a rank; None at the end of the nursery or of a server."""
    with listener:
        connection = connection_of(listener)
    if connection is None:
        return None
    with connection, connection.makefile("r") as requests, connection.makefile("w") as answers:
        return serve(requests, answers)


if __name__ == "__main__":
    os.dup2(2, 1)  # some packages print when they are imported
    gc.disable()
    for name in WARM:
        importlib.import_module(name)
    load_timm()
    gc.freeze()
    gc.enable()
    task = task_of(socket.socket(fileno=int(sys.argv[1])))
    if task is not None:
        become(task.pop("environment"), task.pop("output"))
        run(**task)
        gc.freeze()  # the interpreter's end takes no second to look through all objects
