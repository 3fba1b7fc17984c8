"""Commands whose reader has ended."""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from rich.console import Console

from models.__main__ import main
from models.closed_pipe import CLOSED_PIPE, ends_with_its_reader


@contextmanager
def closed_pipe() -> Iterator[None]:
    """stdout is a pipe that nobody reads. (A fixture would be too early: pytest puts its own stdout before each test.)"""
    read, write = os.pipe()
    os.close(read)
    own, stream = sys.stdout, open(write, "w")
    sys.stdout = stream
    try:
        yield
    finally:
        for each in {sys.stdout, stream}:
            with suppress(BrokenPipeError):
                each.close()
        sys.stdout = own


COMMANDS: dict[str, Callable[[], object]] = {
    "a line that waits in a buffer": lambda: print("text"),
    "a line at once": lambda: print("text", flush=True),
    "more than a buffer holds": lambda: print("text" * 10_000),
    "rich": lambda: Console().print("text"),
    "help": lambda: argparse.ArgumentParser().parse_args(["--help"]),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_without_a_reader_ends_without_a_word(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with closed_pipe():
        with pytest.raises(SystemExit) as ended:
            ends_with_its_reader(COMMANDS[name])()
        print("goes nowhere", flush=True)
    assert ended.value.code == CLOSED_PIPE and capsys.readouterr().err == ""


def test_the_table_of_models_is_such_a_command() -> None:
    with closed_pipe(), pytest.raises(SystemExit) as ended:
        main(["--family", "vit", "--pixels", "32", "--json"])
    assert ended.value.code == CLOSED_PIPE


def test_another_pipe_that_is_closed_and_other_ends_are_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    def of_a_child() -> None:
        raise BrokenPipeError(32, "Broken pipe")

    with pytest.raises(BrokenPipeError):
        ends_with_its_reader(of_a_child)()
    with pytest.raises(SystemExit) as ended:
        ends_with_its_reader(lambda: sys.exit(3))()
    assert ended.value.code == 3 and ends_with_its_reader(lambda: "value")() == "value"


def test_the_code_is_the_one_that_a_shell_reports_of_other_programs() -> None:
    shell = "set -o pipefail; yes | head -1"
    assert subprocess.run(["bash", "-c", shell], capture_output=True, check=False).returncode == CLOSED_PIPE
