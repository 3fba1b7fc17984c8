"""Finding a cell by the beginning of its id, and judging two runs of it. (The second run itself is tested with launch.)"""

from pathlib import Path

import pytest

from harness.reproduce import ReproduceError, Verdict, compare, find, main, protocol_note
from jobs.experiment.records import Environment, Failure, Record, RecordError
from jobs.experiment.run_folder import RunFolder
from jobs.experiment.specs import RecipeSpec
from tests.support.cells import make_cell

MACHINE = Environment(
    commit="a",
    dirty=False,
    python="3.11",
    versions={"torch": "2"},
    host="h",
    cpu="c",
    gpu=None,
    ranks=1,
    threads=1,
    loader="ffcv",
    scan="cpu",
    data_sha256="",
)


def record(cell: str, **changes: object) -> Record:
    """A record without numbers."""
    given = {
        "id": cell, "grid": "g", "model": "m", "pruning": "dense", "seed": 0, "spec": {}, "stages": [], "status": "done", "environment": MACHINE,
        "started": "", "finished": "",
    }  # fmt: skip
    return Record(**{**given, **changes})


def kept(tmp_path: Path, *cells: str) -> Path:
    """A folder of runs with records of these cells."""
    for cell in cells:
        RunFolder(tmp_path / "g").write_record(record(cell))
    return tmp_path


def test_the_beginning_of_an_id_finds_its_cell(tmp_path: Path) -> None:
    assert find(kept(tmp_path, "abc123", "abd456"), "abd")[1].id == "abd456"


def test_a_beginning_that_several_ids_share_names_them(tmp_path: Path) -> None:
    with pytest.raises(ReproduceError, match="several cells begin with 'ab': abc123, abd456"):
        find(kept(tmp_path, "abc123", "abd456"), "ab")


@pytest.mark.parametrize("prefix", ["zz", "../..", "*", ""])
def test_an_unknown_beginning_names_the_cells_that_are_there(tmp_path: Path, prefix: str) -> None:
    with pytest.raises(ReproduceError, match="these have records: abc123"):
        find(kept(tmp_path, "abc123"), prefix)


def test_without_records_it_says_to_launch_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["abc", "--runs", str(tmp_path)]) == 2
    assert "launch a grid first" in capsys.readouterr().err


def test_a_failed_cell_has_nothing_to_reproduce(tmp_path: Path) -> None:
    failure = Failure(kind="diverged", message="nan", stage="s")
    RunFolder(tmp_path / "g").write_record(record("abc", status="failed", failure=failure))
    with pytest.raises(ReproduceError, match="it failed \\(diverged\\)"):
        find(tmp_path, "abc")


def test_of_two_run_folders_the_one_that_is_done_counts(tmp_path: Path) -> None:
    failure = Failure(kind="diverged", message="nan", stage="s")
    RunFolder(tmp_path / "a").write_record(record("abc", status="failed", failure=failure))
    done = RunFolder(tmp_path / "b").write_record(record("abc"))
    assert find(tmp_path, "abc")[0] == done


def test_a_second_run_that_fails_reproduces_nothing() -> None:
    assert not compare(record("a"), record("a", status="failed")).reproduced


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


def test_a_record_that_cannot_be_read_gives_way_to_that_of_another_run(tmp_path: Path) -> None:
    RunFolder(tmp_path / "a").write_record(record("3f2a")).write_text("{")
    path = RunFolder(tmp_path / "b").write_record(record("3f2a"))
    assert find(tmp_path, "3f2a")[0] == path
    path.write_text("")
    with pytest.raises(RecordError, match="is not a record"):
        find(tmp_path, "3f2a")


def test_a_run_of_an_older_protocol_is_announced_as_such() -> None:
    spec = make_cell(recipe=RecipeSpec(dtype="bf16")).to_json()
    assert protocol_note(record("a", spec=spec)) == "" == protocol_note(record("a", spec=make_cell().to_json()))
    spec["recipe"].pop("protocol")
    assert "(fp32 statistics and sums; recorded: that of versions up to 0.2): numbers will differ" in protocol_note(record("a", spec=spec))
