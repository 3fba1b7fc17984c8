"""What the pages say of every key: the rows of their tables, as plain text."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent.parent
MEANINGS: Final = ("meaning", "replaces or adds", "what it removes")  # heads of the columns that describe a row


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a page's table."""

    heading: str  # of its section
    name: str
    cells: tuple[str, ...]
    meaning: str


def rows_of(page: str) -> Iterator[Row]:
    """The described rows of all tables of a page, given by its name in docs/. FileNotFoundError where there are no pages, as in a wheel."""
    heading, columns = "", []
    above = ""
    for line in (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if cells and not above.startswith("|"):
            columns = cells
        elif cells and (described := [number for number, name in enumerate(columns) if name in MEANINGS]) and not line.startswith("|---"):
            yield Row(heading=heading, name=cells[0].strip("`"), cells=tuple(cells), meaning=plain(cells[described[0]]))
        above = line


def meanings(page: str, heading: str) -> dict[str, str]:
    """What a page's tables under a heading say of each key."""
    return {row.name: row.meaning for row in rows_of(page) if row.heading == heading and row.meaning}


def plain(text: str) -> str:
    """A cell of a table without links and code marks; references to other parts of a page are left out."""
    without = re.sub(r"[;:,]? see (also )?\[[^]]*\]\([^)]*\)", "", text)
    return re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", without).replace("`", "").replace("\\|", "|").strip()
