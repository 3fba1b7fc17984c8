"""Judging two runs of a cell. (The second run itself is tested with launch.)"""

from pathlib import Path

import pytest

from harness.reproduce import Verdict, compare, main
from tests.support.records import fake_record


def test_without_records_it_says_to_launch_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["abc", "--runs", str(tmp_path)]) == 2
    assert "launch a grid first" in capsys.readouterr().err


def test_a_second_run_that_fails_reproduces_nothing() -> None:
    assert not compare(fake_record(90.0), fake_record(None)).reproduced


@pytest.mark.parametrize(
    ("same_machine", "same_weights", "differing", "close", "reproduced"),
    [
        (True, True, (), True, True),
        (True, False, (), True, False),
        (True, True, ("top1",), True, False),
        (False, False, ("top1",), True, True),
        (False, False, ("top1",), False, False),
    ],
)
def test_a_machine_must_match_itself_to_the_bit_and_another_within_the_tolerance(
    same_machine: bool, same_weights: bool, differing: tuple[str, ...], close: bool, reproduced: bool
) -> None:
    verdict = Verdict(same_machine=same_machine, same_weights=same_weights, differing=differing, within_tolerance=close)
    assert verdict.reproduced is reproduced
