"""Text for people, on whatever it is shown: labels and messages of old records, narrow terminals, and streams that cannot encode everything."""

import codecs
import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec

from models.closed_pipe import ends_with_its_reader

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.table import Column, Table
    from rich.text import Text

P = ParamSpec("P")
# Control characters, line and paragraph separators, marks that reverse the direction of text, and bytes that were no UTF-8
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
PLAIN = {"±": "+-", "×": "x", "–": "-", "—": "-", "−": "-", "…": "...", "•": "*", "‘": "'", "’": "'", "“": '"', "”": '"', "µ": "u", "→": "->"}
PLAIN |= {chr(code): "-" for code in range(0x2500, 0x2580)} | dict.fromkeys("│┃║╎╏┆┇┊┋", "|")  # lines of boxes and progress bars
PLAIN |= {chr(code): "." for code in range(0x2800, 0x2900)}  # spinners
PLAIN |= {"█": "#", "░": "."}  # bars
ERRORS = "vssm_bench.plain"  # the name of `in_plain_signs` among Python's ways to handle what cannot be encoded
FOLDED = 12  # characters: a column of names may be folded to this width, and no further


def printable(text: str, keep: str = "") -> str:
    """`text` on one line, with its control characters as people write them, such as \\n and \\x1b. Those in `keep` stay."""
    return UNPRINTABLE.sub(lambda match: match[0] if match[0] in keep else match[0].encode("unicode_escape").decode(), text)


def in_plain_signs(error: UnicodeError) -> tuple[str, int]:
    """What stands for characters that cannot be encoded: +- for ±, x for ×, and the number of others. For `codecs.register_error`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    plain = "".join(PLAIN.get(sign) or sign.encode("ascii", "backslashreplace").decode() for sign in signs)
    return plain, error.end


codecs.register_error(ERRORS, in_plain_signs)


def replace_unencodable() -> None:
    """Lets stdout write plain signs in place of characters that its encoding lacks. Every command calls it before it prints.

    A stream that was closed around this process leads nowhere.
    """
    open_closed_streams()
    stream = sys.stdout
    if isinstance(stream, io.TextIOWrapper) and (stream.errors == "strict" or not is_unicode(stream.encoding)):
        stream.reconfigure(errors=ERRORS)


def lost_output(error: OSError) -> str | None:
    """The sentence for an error of stdout, such as a full disk under it; None for an error of another file. stdout leads nowhere from then on.

    Such an error names no file, so another line is tried.
    """
    if error.filename is not None:
        return None
    try:
        print(flush=True)
    except OSError as again:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")
        return f"the output could not be written: {again.strerror}; free space where it goes, or send it elsewhere"
    return None


def tells_lost_output(code: int) -> Callable[[Callable[P, int]], Callable[P, int]]:
    """For a command's `main`: if its output cannot be written, it says so in a line, and ends with this exit code; without a reader, with another."""

    def around(main: Callable[P, int]) -> Callable[P, int]:
        @wraps(main)
        def command(*args: P.args, **kwargs: P.kwargs) -> int:
            try:
                return ends_with_its_reader(main)(*args, **kwargs)
            except OSError as error:
                if (lost := lost_output(error)) is None:
                    raise
                print(lost, file=sys.stderr)
                return code

        return command

    return around


def open_closed_streams() -> None:
    """Opens stdin, stdout and stderr where they are closed: the next file that is opened would take their number, and what is printed."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))


def is_unicode(encoding: str | None) -> bool:
    """True for an encoding that has every character."""
    return (encoding or "ascii").lower().startswith("utf")


def encodable(text: str) -> str:
    """`text` in signs that stdout can encode, so that a table is aligned for what will be printed."""
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    return text.encode(encoding, ERRORS).decode(encoding)


@dataclass(frozen=True, kw_only=True)
class FittedTable:
    """A table where it fits, and elsewhere a paragraph for each row: its names, and its other values each with its heading."""

    table: "Table"
    names: Sequence[int] = (0,)  # columns that name a row; a column of names may be folded

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "Iterator[Table | Text]":
        """What rich prints."""
        if self.needed() <= options.max_width:
            yield self.table
            return
        from rich.text import Text

        if self.table.title:
            yield Text(str(self.table.title), style="italic")
        for row in zip(*(texts(column) for column in self.table.columns), strict=True):
            yield from self.paragraph(row)
        if self.table.caption:
            yield Text(str(self.table.caption), style="dim italic")

    def needed(self) -> int:
        """The width from which the table can be read."""
        from rich.cells import cell_len

        widths = [max(map(cell_len, [str(column.header), *texts(column)])) for column in self.table.columns]
        folded = [min(width, FOLDED) if i in self.names else width for i, width in enumerate(widths)]
        return sum(folded) + len(folded) + 1

    def paragraph(self, row: Sequence[str]) -> "Iterator[Text]":
        """A row, as lines."""
        from rich.text import Text

        headings = [str(column.header) for column in self.table.columns]
        names = "  ".join(row[i] for i in self.names if row[i])
        values = [f"{heading} {row[i]}".strip() for i, heading in enumerate(headings) if i not in self.names and row[i]]
        if names:
            yield Text(names, style="bold", overflow="fold")
        yield Text(",  ".join(values), overflow="fold")


def texts(column: "Column") -> list[str]:
    """The texts of a column's cells."""
    return [str(cell) for cell in column.cells]
