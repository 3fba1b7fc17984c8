"""One line of what `python -m harness.doctor` says."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "error"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What was looked at, how it stands, and what to do if it does not stand well.

    error     a run will fail, or cannot start     warning   a run will be slower, or fail in some case
    """

    topic: str
    state: State
    text: str
    remedy: str = ""


def ok(topic: str, text: str) -> Finding:
    """Nothing to do."""
    return Finding(topic=topic, state="ok", text=text)


def warning(topic: str, text: str, remedy: str) -> Finding:
    """Runs, but see the remedy."""
    return Finding(topic=topic, state="warning", text=text, remedy=remedy)


def error(topic: str, text: str, remedy: str) -> Finding:
    """Will not run until the remedy was taken."""
    return Finding(topic=topic, state="error", text=text, remedy=remedy)
