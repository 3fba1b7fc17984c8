"""How a command ends whose reader has ended, such as `python -m models | head`: it ends too and says nothing, as other programs do."""

import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

CLOSED_PIPE: Final = 141  # exit code: 128 + SIGPIPE, as shells report programs that this signal ended


def ends_with_its_reader(main: Callable[P, R]) -> Callable[P, R]:
    """For a command's `main`: it ends with exit code CLOSED_PIPE, and without a word, once nobody can read its output. Other errors stay."""

    @wraps(main)
    def command(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            try:
                return main(*args, **kwargs)
            finally:
                sys.stdout.flush()
        except (BrokenPipeError, SystemExit) as error:
            if not is_of_output(error):
                raise
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # what Python still holds for the pipe has no reader
            raise SystemExit(CLOSED_PIPE) from None

    return command


def is_of_output(error: BaseException) -> bool:
    """True if an error means that nobody reads stdout, and not another pipe. rich ends a program by itself then."""
    if isinstance(error, SystemExit):
        return isinstance(error.__context__, BrokenPipeError)
    try:
        print(flush=True)
    except BrokenPipeError:
        return True
    return False
