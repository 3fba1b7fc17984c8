"""The file with the times of a model."""

from pathlib import Path

from jobs.experiment.step_times import read_times, write_times
from tests.support.times import TIMES


def test_the_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_times(tmp_path / "a" / "t.json", TIMES)
    assert read_times(tmp_path / "a" / "t.json") == TIMES


def test_no_file_and_one_of_another_version_are_none(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text('{"step_s": 1.0}')
    (tmp_path / "torn.json").write_text('{"step_s": 1.')
    assert [read_times(tmp_path / name) for name in ("missing.json", "old.json", "torn.json")] == [None, None, None]
