"""Times and counts as people read them, and what a command says without a current folder."""

import os
from collections.abc import Sequence
from datetime import datetime


def duration(seconds: float) -> str:
    """Seconds as '45 s', '3:05' or '2:03:05'."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def time_spent(seconds: float) -> str:
    """Seconds as '45 s', '12 minutes' or '3.4 hours', whichever says most in few digits."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return counted(round(seconds / 60), "minute") if seconds < 3600 else f"{seconds / 3600:.1f} hours"


def clock_time(then: datetime, now: datetime) -> str:
    """A time of this machine's clock, with its day unless that is today's: '17:05', 'Tue 1 Dec 17:05'."""
    day = "" if then.date() == now.date() else f"{then:%a} {then.day} {then:%b} "
    return f"{day}{then:%H:%M}"


def counted(number: int, word: str) -> str:
    """'1 cell', '3 cells'."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def shortened(names: Sequence[object], most: int) -> str:
    """'a, b', and 'a, b and 3 more' where there are more than `most`."""
    rest = len(names) - most
    return ", ".join(map(str, names[:most])) + (f" and {rest} more" if rest > 0 else "")


def no_current_folder() -> str | None:
    """Why no network can be built from here, which loads libraries that ask for the current folder; None if it is there."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return "the current folder was removed: cd to a folder that is there, and rerun the command"
    return None
