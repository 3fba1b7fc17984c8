"""python -m harness: lists the commands; `python -m harness <command> ...` runs one of them.

Exit codes: 0: listed; 2: no such command; otherwise the command's own.
"""

import ast
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from jobs.experiment.output import replace_unencodable
from models.closed_pipe import ends_with_its_reader
from models.text import valid_names

COMMANDS = ("doctor", "launch", "prepare", "status", "logs", "cancel", "reproduce", "verify", "check", "export")
OK, USAGE = 0, 2


@ends_with_its_reader
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    replace_unencodable()
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help"):
        print(overview())
        return OK
    if name not in COMMANDS:
        print(f"no command '{name}'{valid_names(name, COMMANDS)}", file=sys.stderr)
        return USAGE
    return int(import_module(f"harness.{name}").main(rest))


def overview() -> str:
    """A line for each command: its name and arguments, and its purpose."""
    rows = [summary(name).removeprefix("python -m harness.").partition(": ") for name in COMMANDS]
    width = max(len(usage) for usage, _, _ in rows)
    lines = [f"  {usage:<{width}}  {purpose}" for usage, _, purpose in rows]
    return "\n".join(["python -m harness.<command>; with -h it shows its options", "", *lines])


def summary(name: str) -> str:
    """The first line of a command's docstring. The file is parsed, not imported: that takes milliseconds."""
    text = (Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(text)) or "").splitlines()[0]


if __name__ == "__main__":
    sys.exit(main())
