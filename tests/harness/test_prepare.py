"""The command that writes data: what it says before, meanwhile and after."""

import re
from pathlib import Path

import pytest

from harness.grid.read import read_grid
from harness.prepare import FAILED, OK, USAGE, main
from harness.submit import data_first
from harness.submit.data_first import data_sets, missing
from tests.support.commands import written

GRID = """
name: t
data: [{source: synthetic, samples: 200, img_size: 16}, {source: synthetic, samples: 200, img_size: 16, flip: true}, digits: DIGITS]
models: [vim_micro]
pruning: [dense]
seeds: [0, 1]
cluster: {cache: CACHE}
""".replace("digits: DIGITS", "{source: digits}")


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    """Three data sets, two of which have the same files."""
    return written(tmp_path, GRID.replace("CACHE", str(tmp_path / "cache")))


def test_a_grid_without_data_is_prepared_and_then_there_is_nothing_to_do(grid: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read = read_grid(grid)
    assert len(data_sets(read.cells)) == 3 and len(missing(read.cluster, data_sets(read.cells))) == 2
    assert main([str(grid), "--workers", "2"]) == OK
    said = capsys.readouterr().out
    assert re.search(r"synthetic: 250 images to write; about [\d.]+ MB needed, [\d.]+ [GT]B free", said)
    assert f"digits: ready in {grid.parent}/cache/digits-" in said
    assert missing(read.cluster, data_sets(read.cells)) == []
    assert main([str(grid)]) == OK
    assert capsys.readouterr().out == f"nothing to do: 3 data sets ready in {grid.parent}/cache\n"


def test_a_rate_and_the_time_left_are_shown(grid: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_first, "LINE_EVERY_S", 0.0)
    assert main([str(grid)]) == OK
    assert re.search(r"synthetic: [\d,]+ of 250 images, [\d,]+ images/s, \d+ s left", capsys.readouterr().out)


def test_a_disk_that_is_too_small_ends_the_command(grid: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.data.space.free_bytes", lambda folder: 1000)
    assert main([str(grid)]) == FAILED
    assert "are needed for 250 images, and 1 kB are free: free space there" in capsys.readouterr().err


def test_mistakes_of_a_grid_and_data_that_is_not_there_are_told_with_their_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(written(tmp_path, GRID.replace("samples", "sampels")))]) == USAGE
    assert "did you mean 'samples'" in capsys.readouterr().err
    grid = written(tmp_path, GRID.replace("{source: digits}", "{source: imagefolder, path: /nowhere}"))
    assert main([str(grid)]) == USAGE
    assert f"{grid}:3: data[2]: /nowhere/train: no such folder" in capsys.readouterr().err


@pytest.mark.parametrize("number", ["0", "-1", "two"])
def test_workers_are_counted_from_one(grid: Path, number: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(grid), "--workers", number])
    assert f"argument --workers: invalid workers value: '{number}'" in capsys.readouterr().err
