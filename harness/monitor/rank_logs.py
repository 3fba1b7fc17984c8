"""The logs of several ranks together: side by side where the terminal is wide enough, else line by line with the rank before each."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from rich.cells import cell_len, chop_cells, set_cell_size

from jobs.experiment.output import encodable, printable

LEAST = 36  # characters of a column
GAP = " | "
TAB = 4


@dataclass
class Ranks:
    """Turns the texts of ranks, as they come, into lines for a terminal. A line that is not whole yet is kept until it is.

    width: columns of the terminal; None: no terminal, so a line is never cut.
    """

    width: int | None
    left: dict[int, str] = field(default_factory=dict)  # the beginning of a line, by rank
    columns: tuple[int, ...] = ()  # ranks whose names were printed above their columns

    def lines(self, texts: Mapping[int, str], ranks: Sequence[int], *, last: bool = False) -> Iterator[str]:
        """The lines of new texts by rank. ranks: all that have a log. last: nothing follows, so that lines without an end are whole too."""
        whole = {rank: self.whole_lines(rank, texts.get(rank, ""), last) for rank in ranks}
        if not any(whole.values()):
            return
        size = column_size(self.width, len(ranks))
        if size is None:
            yield from (f"rank {rank}: {line}" for line_of in zip_longest(*whole.values()) for rank, line in zip(whole, line_of, strict=True) if line)
            return
        if self.columns != tuple(ranks):
            self.columns = tuple(ranks)
            yield joined([f"rank {rank}" for rank in ranks], size)
            yield joined(["-" * size] * len(ranks), size)
        for line_of in zip_longest(*whole.values(), fillvalue=""):
            pieces = (chop_cells(line, size) or [""] for line in line_of)
            yield from (joined(row, size) for row in zip_longest(*pieces, fillvalue=""))

    def whole_lines(self, rank: int, text: str, last: bool) -> list[str]:
        """The lines of a rank that are whole now. Of a line that was written over, as progress bars are, its last state."""
        *whole, rest = (self.left.pop(rank, "") + text).split("\n")
        if last and rest:
            whole.append(rest)
        elif not last:
            self.left[rank] = rest
        return [encodable(printable(line.rstrip("\r").rpartition("\r")[2].expandtabs(TAB))) for line in whole]


def column_size(width: int | None, ranks: int) -> int | None:
    """The width of a column; None where the terminal is too narrow for so many, or there is none, or a single rank."""
    if width is None or ranks < 2:
        return None
    size = (width - len(GAP) * (ranks - 1)) // ranks
    return size if size >= LEAST else None


def joined(cells: Sequence[str], size: int) -> str:
    """A row of columns."""
    return GAP.join(cell if cell_len(cell) == size else set_cell_size(cell, size) for cell in cells).rstrip()


def chosen(text: str, known: Sequence[int]) -> list[int]:
    """The ranks that '0,2-4' names, or all of `known`. Raises ValueError for what is no such list, and for ranks that have no log."""
    if text == "all":
        return list(known)
    ranks: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f"--ranks takes a list such as 0,2-4, got '{text}'")
        ranks += range(int(first), int(last or first) + 1)
    if missing := [rank for rank in ranks if rank not in known]:
        raise ValueError(f"there is no log of rank {missing[0]}; there are those of ranks {known[0]} to {known[-1]}")
    return list(dict.fromkeys(ranks))
