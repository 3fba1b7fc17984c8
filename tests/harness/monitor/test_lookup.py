"""A run folder, cell or stage by what a user types."""

import os
import time
from pathlib import Path

import pytest

from harness.monitor.lookup import NameNotFound, find_id, find_run, is_run
from jobs.cluster.claims import claimed
from jobs.experiment.ids import CellId, StageId
from jobs.experiment.index import CellEntry, RunIndex, StageEntry, write_index
from jobs.experiment.run_folder import RunFolder
from tests.support.runs import FakeRun

RUNS = Path("runs")
NOW = time.time()


def launched(runs: Path, name: str, cells: tuple[str, ...] = (), stages: tuple[str, ...] = (), age_s: float = 0.0) -> RunFolder:
    """A run folder with these cells and stages, launched some time ago, by a clock that stands still: the sequence is never that of the writing."""
    run = RunFolder(runs / name)
    titled = {StageId(stage): StageEntry(kind=f"model  {stage}", seed=0, epochs=1) for stage in stages}
    entries = {CellId(cell): CellEntry(title=f"model  {cell}", stages=tuple(titled)) for cell in cells}
    write_index(run, RunIndex(grid=name, file=f"{name}.yaml", cluster="local", stages=titled, cells=entries))
    index = run.index_path()
    assert index is not None
    os.utime(index, (NOW - age_s,) * 2)
    return run


@pytest.mark.parametrize("given", ["grid.yaml", "runs/small", "small", None])
def test_a_run_has_its_grid_its_folder_and_its_name(fake: FakeRun, given: str | None) -> None:
    assert find_run(given, RUNS).path == Path("runs/small")


def test_without_a_name_the_latest_launch_counts_unless_another_is_at_work(fake: FakeRun) -> None:
    launched(RUNS, "later", age_s=-1e6)
    assert find_run(None, RUNS).path.name == "later", "although this folder's grid.yaml is another one"
    with claimed(fake.run.launch_lock):
        assert find_run(None, RUNS).path.name == "small"


def test_a_grid_file_without_a_name_or_with_an_error_is_refused(tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text("seeds: [0]\n")
    with pytest.raises(NameNotFound, match="has no 'name'"):
        find_run(str(tmp_path / "grid.yaml"), tmp_path)
    (tmp_path / "grid.yaml").write_text("name: [\n")
    with pytest.raises(NameNotFound, match=r"grid\.yaml"):
        find_run(str(tmp_path / "grid.yaml"), tmp_path)


def test_an_unknown_name_is_answered_with_the_run_folders(tmp_path: Path) -> None:
    with pytest.raises(NameNotFound, match="neither a grid file nor a run folder; there are no run folders under"):
        find_run("nowhere", tmp_path)
    for number in range(7):
        launched(tmp_path, f"grid{number}", age_s=number)
    with pytest.raises(NameNotFound, match="did you mean 'grid4'"):
        find_run("gird4", tmp_path)
    with pytest.raises(NameNotFound, match=r"; run folders under \S+: grid0, grid1, grid2, grid3, grid4, grid5 \.\.\.$"):
        find_run("nowhere", tmp_path)


def test_without_any_launch_the_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NameNotFound, match=r"Launch a grid with: python -m harness\.launch <grid\.yaml>"):
        find_run(None, RUNS)


def test_a_file_a_folder_and_a_name_are_runs_and_an_id_is_none(fake: FakeRun) -> None:
    assert is_run("grid.yaml", RUNS) and is_run("runs/small", RUNS) and is_run("small", RUNS)
    assert not is_run(fake.paths[0].cell.id, RUNS)


def test_the_beginning_of_an_id_names_a_cell_or_a_stage(tmp_path: Path) -> None:
    launched(tmp_path, "grid", cells=("abc1", "abd2"), stages=("ace3",))
    cell, stage = find_id("abc", tmp_path), find_id("ac", tmp_path)
    assert (cell.cell, cell.stage) == ("abc1", None) and (stage.cell, stage.stage) == (None, "ace3")


def test_a_damaged_index_of_another_run_does_not_hide_an_id_and_is_named_where_none_is_found(tmp_path: Path) -> None:
    launched(tmp_path, "old", cells=("abc1",), age_s=100)
    for name, content in (("torn", '{"grid": "torn", "sta'), ("list", "[]"), ("empty", "")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.json").write_text(content)
    (tmp_path / "folder" / "index.json").mkdir(parents=True)
    assert find_id("abc", tmp_path).cell == "abc1"
    with pytest.raises(NameNotFound) as caught:
        find_id("ffff", tmp_path)
    assert f"not searched: {tmp_path}/folder/index.json cannot be read (Is a directory)" in str(caught.value)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(f"no cell or stage 'ffff' under {tmp_path}") and "abc1" in lines[0]
    assert all(
        any(line.startswith(f"  not searched: {tmp_path / name}/index.json is damaged") for line in lines[1:]) for name in ("torn", "list", "empty")
    )


def test_an_id_that_begins_another_one_names_itself(tmp_path: Path) -> None:
    launched(tmp_path, "grid", cells=("abc", "abcd"))
    assert find_id("abc", tmp_path).cell == "abc"


def test_of_two_run_folders_the_one_launched_last_counts(tmp_path: Path) -> None:
    launched(tmp_path, "before", cells=("abc1",), age_s=10)
    later = launched(tmp_path, "later", cells=("abc1",))
    assert find_id("abc", tmp_path).run.path == later.path


def test_a_beginning_that_several_ids_share_lists_them_with_their_titles(tmp_path: Path) -> None:
    launched(tmp_path, "grid", cells=("abc1",), stages=("abd2",))
    with pytest.raises(NameNotFound, match="2 ids of .* begin with 'ab'; give more letters") as refused:
        find_id("ab", tmp_path)
    assert str(refused.value).splitlines()[1:] == ["  abc1  cell  model  abc1", "  abd2  stage  model  abd2  seed 0"]


def test_an_unknown_id_is_answered_with_a_beginning_that_exists(tmp_path: Path) -> None:
    launched(tmp_path, "grid", cells=("abcdef",))
    with pytest.raises(NameNotFound, match="no cell or stage 'abcx' under .*; did you mean 'abcd'?"):
        find_id("abcx", tmp_path)
    with pytest.raises(NameNotFound, match="; ids: abcdef$"):
        find_id("zzzz", tmp_path)


def test_a_run_is_known_by_its_grid_whatever_mistakes_the_grid_has_now(fake: FakeRun) -> None:
    fake.grid.path.write_text("name: small\nseeds: [010]\nmodels: !mine []\nrecipe: {}\nrecipe: {}\n")
    assert find_run(str(fake.grid.path), RUNS).path.name == "small"


@pytest.mark.parametrize("name", ["../up", "n" * 300, '"a\\n"'])
def test_a_name_that_is_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "grid.yaml").write_text(f"# a grid\nname: {name}\n")
    with pytest.raises(NameNotFound, match=r"grid.yaml:2: name: (must be|has 300)"):
        find_run(str(tmp_path / "grid.yaml"), tmp_path)
