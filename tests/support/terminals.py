"""A command on a terminal of its own, whose screen a test reads."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

SEQUENCE = re.compile(r"\x1b\[[?0-9;]*[A-Za-z]")  # that a terminal acts on
HOME, ALONE, BACK, HIDDEN, SHOWN = "\x1b[H", "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25l", "\x1b[?25h"


class Terminal:
    """A terminal of some size, and the process that has it."""

    def __init__(self, command: list[str], cwd: Path, columns: int, lines: int, environment: Mapping[str, str]) -> None:
        self.screen, inner = pty.openpty()
        self.resize(columns, lines)
        self.settings = termios.tcgetattr(inner)
        surroundings = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")} | {"TERM": "xterm"} | environment
        self.process = subprocess.Popen(
            command, cwd=cwd, env=surroundings, stdin=inner, stdout=inner, stderr=inner, start_new_session=True, preexec_fn=own_terminal
        )
        self.inner, self.output = inner, ""

    def resize(self, columns: int, lines: int) -> None:
        """Gives the window another size; the kernel tells the process."""
        fcntl.ioctl(self.screen, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def read_until(self, text: str, after: int = 0) -> None:
        """Reads until the output has a text behind a position."""
        while text not in self.output[after:]:
            while not select.select([self.screen], [], [], 0.5)[0]:
                assert self.process.poll() is None, f"no '{text}' in: {self.output!r}"
            self.output += os.read(self.screen, 1 << 16).decode(errors="replace")

    def press(self, keys: str) -> None:
        """Types."""
        os.write(self.screen, keys.encode())

    def frame(self) -> list[str]:
        """The lines of the last screen that was drawn whole, without colours."""
        frames = self.output.partition(BACK)[0].split(HOME)
        return [SEQUENCE.sub("", line).replace("\r", "") for line in frames[-2].split("\n")]

    def end(self) -> int:
        """The exit status; reads what is still printed, for which a process waits if nobody does."""
        while self.process.poll() is None or select.select([self.screen], [], [], 0)[0]:
            if select.select([self.screen], [], [], 0.05)[0]:
                self.output += os.read(self.screen, 1 << 16).decode(errors="replace")
        return self.process.returncode


def own_terminal() -> None:
    """Makes the terminal of stdin that of this process, so that its keys reach it; a shell's & may let its parent ignore Ctrl-C."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def terminal(command: list[str], cwd: Path, columns: int = 80, lines: int = 24, **environment: str) -> Iterator[Terminal]:
    """A command that runs on a terminal until the block ends."""
    opened = Terminal(command, cwd, columns, lines, environment)
    try:
        yield opened
    finally:
        if opened.process.poll() is None:
            opened.process.send_signal(signal.SIGKILL)
            opened.process.wait()
        os.close(opened.screen)
        os.close(opened.inner)
