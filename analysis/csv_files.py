"""CSV files: written so that a spreadsheet runs nothing in them, and read back as they were, also after a spreadsheet has saved them."""

import csv
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from pathlib import Path

from jobs.experiment.files import write_text
from jobs.experiment.output import printable

Value = str | float | int | bool | None
GUARD = "'"  # a spreadsheet shows a cell that begins with it as text
IGNORED = "'\" \t\r\n\v\f\u00a0\u2007\u202f\u3000\u200b\u200c\u200d\u2060\ufeff"  # spreadsheets may drop them before they look for a formula
FORMULA = frozenset("=+-@\uff1d\uff0b\uff0d\uff20")  # signs that begin a formula; the last four are the same in full width
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?%?")


def write_csv(path: Path, names: Sequence[str], lines: Iterable[Mapping[str, Value]]) -> Path:
    """Writes the lines under a header, atomically, and returns `path`. An unknown value becomes an empty field."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([written(line.get(name)) for name in names] for line in lines)
    return write_text(path, text.getvalue())


def written(value: Value) -> str:
    """The text of a value in a CSV: at most 8 digits; true or false; empty if unknown; text on one line and never a formula."""
    if value is None:
        return ""
    if isinstance(value, str):
        return guarded(printable(value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.8g}" if isinstance(value, float) else str(value)


def guarded(text: str) -> str:
    """`text`, behind an apostrophe where a spreadsheet could take it for a formula: at its begin, and after each ;, which some take for a comma."""
    return ";".join(GUARD + part if is_formula(part) else part for part in text.split(";"))


def unguarded(text: str) -> str:
    """The text that `guarded` was given."""
    return ";".join(part[1:] if part[:1] == GUARD and is_formula(part) else part for part in text.split(";"))


def is_formula(text: str) -> bool:
    """True if a spreadsheet could run `text`. Apostrophes before it change nothing, so that `unguarded` is exact. A number is no formula."""
    content = text.lstrip(IGNORED)
    return content[:1] in FORMULA and not NUMBER.fullmatch(content)


def read_csv(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV with a header, ours or another's. A byte order mark is skipped. Raises OSError, ValueError or csv.Error."""
    content = path.read_bytes()
    text = content.decode("utf-16" if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig")
    lines = csv.DictReader(StringIO(text, newline=""), restval="")
    return [{name: unguarded(value) for name, value in line.items() if name is not None} for line in lines]
