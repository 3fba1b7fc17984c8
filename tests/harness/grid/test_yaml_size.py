"""YAML that is nested too deeply, or explodes, is refused in a line; the aliases that grids use are not."""

from pathlib import Path

import pytest

from harness.grid.yaml_size import MOST_ALIASED, MOST_LEVELS, excess
from tests.support.grids import START, mistakes, read


def aliases_of(levels: int, entry: str) -> str:
    """A chain of anchors, each of which uses the one before as `entry` says."""
    return "x-0: &a0 {x: 1}\n" + "".join(f"x-{level}: &a{level} {entry.format(f'*a{level - 1}')}\n" for level in range(1, levels))


DEEP = {
    "lists": "x: " + "[" * 100_000,
    "mappings": "x: " + "{a: " * 100_000,
    "lists by indentation": "x:\n" + "- " * 10_000 + "y",
    "mappings by indentation": "\n".join(" " * level + "a:" for level in range(1_000)),
    "keys": "? " * 10_000 + "a",
    "aliases in lists": aliases_of(1_000, "[{}]"),
    "merged aliases": aliases_of(1_000, "{{<<: {}}}"),
}


@pytest.mark.parametrize("text", DEEP.values(), ids=DEEP)
def test_deep_nesting_is_refused_in_a_line(folder: Path, text: str) -> None:
    (line,) = mistakes(text)
    assert line.endswith(f": nested more than {MOST_LEVELS} levels deep; a grid needs about six")


def test_aliases_that_explode_are_refused_with_the_line_that_is_too_much(folder: Path) -> None:
    text = "x-0: &a0 [1, 2]\n" + "".join(f"x-{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 30))
    (line,) = mistakes(START + text)
    assert line == "grid.yaml:10: the aliases up to this line stand for more than 100000 values; write out the few that are meant"


def test_the_largest_nesting_and_many_aliases_are_allowed() -> None:
    assert excess("[" * MOST_LEVELS + "]" * MOST_LEVELS) is None
    assert excess("[" * (MOST_LEVELS + 1) + "]" * (MOST_LEVELS + 1)) is not None
    assert excess("- &a x\n" + "- *a\n" * MOST_ALIASED) is None
    assert excess("- &a x\n" + "- *a\n" * (MOST_ALIASED + 1)) is not None


def test_values_that_are_written_out_are_not_counted(folder: Path) -> None:
    assert len(read(START.replace("[0]", str(list(range(9_000))))).cells) == 9_000


def test_an_anchor_may_be_given_anew() -> None:
    assert excess("- &a [x]\n- *a\n- &a [[x]]\n- *a\n") is None
