"""Suggestions at the end of an error message."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(given: str, valid: Iterable[str]) -> str:
    """`; did you mean 'x'?` if a valid name is close to the given name; otherwise empty."""
    close = get_close_matches(given, list(valid), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def valid_names(given: str, valid: Iterable[str]) -> str:
    """`; did you mean 'x'? valid: x, y`, or `; valid: x, y` if no name is close."""
    names = list(valid)
    return f"{did_you_mean(given, names) or ';'} valid: {', '.join(names)}"
