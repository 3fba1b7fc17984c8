"""Training curves in a terminal: in dots of Braille, or in ASCII where the terminal has no others."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from analysis.running import Points, StageCurves
from jobs.experiment.output import encodable, printable

ROWS = 8  # of a plot
AXIS = 9  # characters of the values beside a plot
MOST_COLUMNS, LEAST_COLUMNS = 72, 16
BRAILLE = 0x2800
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # of a character: four rows of two


def curve_lines(stages: Sequence[StageCurves], width: int) -> Iterator[str]:
    """The lines for a terminal of some width: for each stage its title, then its loss and its validation accuracy by step."""
    for curves in stages:
        now = curves.progress
        yield printable(f"{curves.stage}  {curves.title}" + (f"  epoch {now.epoch}/{now.epochs}, step {now.step}/{now.steps}" if now else ""))
        for name, points, form in (("training loss", curves.loss, ".3g"), ("validation top-1 (%)", curves.val_top1, ".2f")):
            yield from plot_lines(name, points, form, width)
        yield ""


def plot_lines(name: str, points: Points, form: str, width: int) -> list[str]:
    """A plot with its name, the range of values at its left, and the range of steps below. Without points: a line that says so."""
    if not points:
        return [f"{name}: nothing yet"]
    columns = max(LEAST_COLUMNS, min(MOST_COLUMNS, width - AXIS - 2))
    values = [value for _, value in points]
    high, low = format(max(values), form), format(min(values), form)
    rows = canvas(points, columns)
    labels = [high, *[""] * (ROWS - 2), low]
    steps = f"step {points[0][0]:g}"
    last = f"{points[-1][0]:g}"
    lines = [f"{label:>{AXIS}} {row}".rstrip() for label, row in zip(labels, rows, strict=True)]
    return [f"{name}, now {format(values[-1], form)}", *lines, f"{'':>{AXIS}} {steps}{last:>{max(1, columns - len(steps))}}"]


def canvas(points: Points, columns: int) -> list[str]:
    """The rows of a plot. Neighbouring points are joined."""
    fine = encodable(chr(BRAILLE + 1)) == chr(BRAILLE + 1)
    across, down = (2, 4) if fine else (1, 1)
    marks = marked(points, columns * across, ROWS * down)
    if not fine:
        return ["".join("*" if (column, row) in marks else " " for column in range(columns)) for row in range(ROWS)]
    return ["".join(chr(BRAILLE + dots(marks, column, row)) for column in range(columns)) for row in range(ROWS)]


def dots(marks: set[tuple[int, int]], column: int, row: int) -> int:
    """The dots of a character, as Unicode counts them."""
    return sum(DOTS[y][x] for y in range(4) for x in range(2) if (2 * column + x, 4 * row + y) in marks)


def marked(points: Points, width: int, height: int) -> set[tuple[int, int]]:
    """The dots of a curve in a grid: column, and row from above."""
    first, last = points[0][0], points[-1][0]
    values = [value for _, value in points]
    low, high = min(values), max(values)
    spots = [(scaled(step, first, last, width), height - 1 - scaled(value, low, high, height)) for step, value in points]
    marks = set(spots)
    for (x0, y0), (x1, y1) in pairwise(spots):
        pieces = max(abs(x1 - x0), abs(y1 - y0))
        marks |= {(x0 + round((x1 - x0) * piece / pieces), y0 + round((y1 - y0) * piece / pieces)) for piece in range(1, pieces)}
    return marks


def scaled(value: float, low: float, high: float, size: int) -> int:
    """A position from 0 to size - 1; the middle where all values are the same."""
    return round((value - low) / (high - low) * (size - 1)) if high > low else (size - 1) // 2
