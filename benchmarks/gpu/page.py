"""The page: every section's rows, written after each row as Markdown and as JSON, and the processes that measure them."""

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.gpu.rows import MARK, Section, Values
from jobs.experiment.files import written_aside

Command = Callable[[str, int], Sequence[str]]  # name of a section, first row -> what to run
OVER = "not measured: the time was over"
LAST = ("took, s", "error")  # columns at the end
ATTEMPTS = 4  # processes of one section, each of which an error of a kernel may end


@dataclass(kw_only=True)
class Page:
    """What is measured so far. `labels`: of each row of each section."""

    folder: Path
    title: str
    sections: Mapping[str, Section]
    labels: Mapping[str, Sequence[dict[str, str]]]
    results: dict[str, dict[int, Values]] = field(default_factory=dict)

    def put(self, section: str, number: int, values: Values) -> None:
        """Takes a row, and writes both files."""
        self.results.setdefault(section, {})[number] = values
        self.write()

    def write(self) -> None:
        """Writes gpu.md and gpu.json, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, text in (("gpu.md", self.markdown()), ("gpu.json", json.dumps(self.as_json(), indent=1) + "\n")):
            with written_aside(self.folder / name) as aside:
                aside.write_text(text, encoding="utf-8")

    def as_json(self) -> dict[str, object]:
        """Every row with its labels, by section."""
        return {"title": self.title, "sections": {name: self.rows(name) for name in self.sections if name in self.results}}

    def rows(self, section: str) -> list[Values]:
        """The rows of a section in their sequence, labels first."""
        return [{**self.labels[section][number], **values} for number, values in sorted(self.results[section].items())]

    def markdown(self) -> str:
        """The page."""
        parts = [f"# {self.title}\n"]
        for name, section in self.sections.items():
            if name in self.results:
                parts += [f"## {section.title}\n", f"{section.about}\n" if section.about else "", table(self.rows(name))]
        return "\n".join(part for part in parts if part)


def table(rows: Sequence[Values]) -> str:
    """Rows as a table of Markdown. A column that is empty in all rows is left out."""
    named = [key for key in dict.fromkeys(key for row in rows for key in row) if any(row.get(key) is not None for row in rows)]
    columns = [*(key for key in named if key not in LAST), *(key for key in LAST if key in named)]
    numbers = {key for key in columns if not any(isinstance(row.get(key), str) for row in rows)}
    rule = "|".join("---:" if key in numbers else "---" for key in columns)
    lines = [" | ".join(columns), rule, *(" | ".join(figure(row.get(key)) for key in columns) for row in rows)]
    return "".join(f"| {line} |\n" if line is not rule else f"|{line}|\n" for line in lines)


def figure(value: float | str | None) -> str:
    """A cell of a table, with three digits that count."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value.replace("|", "\\|")
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def fill(page: Page, name: str, command: Command, until: float) -> None:
    """Measures a section in processes of their own until a moment of time.monotonic(). A row that ends its process is told, and the next one begins
    in another.
    """
    count, first = len(page.labels[name]), 0
    for _ in range(ATTEMPTS):
        if first == count or time.monotonic() >= until:
            break
        first = follow(page, name, command, first, until)
    for number in range(first, count):
        page.put(name, number, {"error": OVER if time.monotonic() >= until else f"not measured: {ATTEMPTS} processes have failed"})


def follow(page: Page, name: str, command: Command, first: int, until: float) -> int:
    """Takes the rows of one process, and returns the number of the first one that it has not come to."""
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(list(command(name, first)), stdout=subprocess.PIPE, stderr=errors, text=True) as process:
            assert process.stdout is not None
            timer = threading.Timer(max(0.0, until - time.monotonic()), process.kill)
            timer.start()
            for line in process.stdout:
                if line.startswith(MARK):
                    number, values = json.loads(line.removeprefix(MARK))
                    page.put(name, number, values)
                    first = number + 1
            process.wait()
            timer.cancel()
        if process.returncode in (0, 3) or first == len(page.labels[name]):  # 3: the row that broke the device has been told
            return first
        errors.seek(0)
        last = (errors.read().strip().splitlines() or ["no message"])[-1][:300]
    ended = "ended when the time was over" if time.monotonic() >= until else f"its process ended with {process.returncode}: {last}"
    page.put(name, first, {"error": ended})
    return first + 1


def own_command(device: str) -> Command:
    """What runs a section of this package."""
    return lambda name, first: [sys.executable, "-m", "benchmarks.gpu", "--device", device, "--section", name, "--first", str(first)]
