"""Times and counts as people read them."""

import os
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from harness import launch, reproduce
from harness.text import clock_time, counted, duration, no_current_folder, shortened, time_spent


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (45, "45 s"), (59.6, "1:00"), (185, "3:05"), (7385, "2:03:05"), (100 * 3600, "100:00:00")]
)
def test_a_duration_has_as_many_parts_as_it_needs(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_time_of_another_day_has_its_day() -> None:
    noon = datetime(2026, 6, 1, 12)
    assert [clock_time(noon + timedelta(hours=hours), noon) for hours in (1, 24, -13)] == ["13:00", "Tue 2 Jun 12:00", "Sun 31 May 23:00"]


def test_time_spent_is_told_in_the_unit_that_says_most() -> None:
    assert [time_spent(seconds) for seconds in (0, 45, 70, 720, 12_240)] == ["0 s", "45 s", "1 minute", "12 minutes", "3.4 hours"]


def test_only_one_thing_is_counted_in_the_singular() -> None:
    assert [counted(number, "cell") for number in (0, 1, 3)] == ["0 cells", "1 cell", "3 cells"]


def test_a_long_list_ends_in_the_number_of_those_left_out() -> None:
    assert shortened(["a", "b"], 2) == "a, b" and shortened(["a", "b", "c", "d"], 2) == "a, b and 2 more" and shortened([], 2) == ""


def test_commands_that_build_networks_say_that_the_current_folder_was_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert no_current_folder() is None
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    os.rmdir(tmp_path / "gone")
    for command, argument in ((launch.main, "/grid.yaml"), (reproduce.main, "3f2a")):
        assert command([argument]) == 2
        assert capsys.readouterr().err == "the current folder was removed: cd to a folder that is there, and rerun the command\n"
