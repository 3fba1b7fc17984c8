"""Curves in a terminal."""

import io
import math
import sys

import pytest

from analysis.running import StageCurves
from analysis.terminal_curves import ROWS, canvas, curve_lines, marked, plot_lines, scaled

FALLING = tuple((float(step), 10.0 - step) for step in range(11))


def test_a_straight_line_is_drawn_straight_from_corner_to_corner() -> None:
    assert marked(FALLING, 11, 11) == {(number, number) for number in range(11)}
    assert marked(((0.0, 0.0), (10.0, 10.0)), 11, 11) == {(number, 10 - number) for number in range(11)}, "points are joined"


def test_every_mark_is_within_the_grid() -> None:
    wave = tuple((float(step), math.sin(step / 3) * 10 ** (step % 5)) for step in range(100))
    for width, height in ((16, 8), (144, 32), (2, 2)):
        marks = marked(wave, width, height)
        assert all(0 <= column < width and 0 <= row < height for column, row in marks)
        assert {0, height - 1} <= {row for _, row in marks} and {0, width - 1} <= {column for column, _ in marks}


def test_equal_values_lie_in_the_middle() -> None:
    assert scaled(3.0, 3.0, 3.0, 9) == 4
    assert {row for _, row in marked(((0.0, 5.0), (1.0, 5.0)), 10, 9)} == {4} and marked(((3.0, 5.0),), 9, 9) == {(4, 4)}


def test_braille_is_one_character_for_eight_dots_and_ascii_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    fine = canvas(FALLING, 20)
    assert len(fine) == ROWS and {len(row) for row in fine} == {20}
    assert all(0x2800 <= ord(sign) < 0x2900 for row in fine for sign in row)
    lit = {
        (2 * column + x, 4 * row + y) for row, line in enumerate(fine) for column, sign in enumerate(line) for x, y in unpacked(ord(sign) - 0x2800)
    }
    assert lit == marked(FALLING, 40, 4 * ROWS)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    plain = canvas(FALLING, 20)
    assert {(column, row) for row, line in enumerate(plain) for column, sign in enumerate(line) if sign == "*"} == marked(FALLING, 20, ROWS)


def unpacked(bits: int) -> list[tuple[int, int]]:
    """The dots of a character by Unicode's numbers: 1 2 3 down the left, 4 5 6 down the right, 7 and 8 below."""
    positions = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3)]
    return [position for number, position in enumerate(positions) if bits >> number & 1]


@pytest.mark.parametrize("width", [10, 40, 80, 300])
def test_the_lines_fit_the_terminal_from_40_columns_on(width: int) -> None:
    curves = StageCurves(stage="3f2a", title="vim  train\x1b[2J", loss=FALLING, val_top1=(), progress=None, changed=0.0)
    lines = list(curve_lines([curves], width))
    assert max(map(len, lines)) <= max(40, width) and "\x1b" not in "".join(lines)
    assert (
        lines[0].startswith("3f2a  vim")
        and lines[1] == "training loss, now 0"
        and lines[2].lstrip().startswith("10 ")
        and lines[-2] == "validation top-1 (%): nothing yet"
    )


def test_values_and_steps_stand_at_the_ends() -> None:
    lines = plot_lines("loss", FALLING, ".3g", 60)
    assert lines[-1].split() == ["step", "0", "10"] and lines[-1].endswith("10") and lines[ROWS].split()[0] == "0"
