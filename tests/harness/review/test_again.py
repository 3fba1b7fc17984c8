"""Finding a cell by the beginning of its id, and what is asked of a copy of the code. (Runs are tested with launch and verify.)"""

from pathlib import Path

import pytest

from harness.review.again import NotRecordedError, find, machine, protocol_note, records_in, unequal, with_seed
from jobs.experiment.records import Environment, Failure, Record, RecordError
from jobs.experiment.run_folder import RunFolder
from jobs.experiment.specs import RecipeSpec
from tests.support.cells import make_cell
from tests.support.records import fake_environment, fake_record

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
    with pytest.raises(NotRecordedError, match="several cells begin with 'ab': abc123, abd456"):
        find(kept(tmp_path, "abc123", "abd456"), "ab")


@pytest.mark.parametrize("prefix", ["zz", "../..", "*", ""])
def test_an_unknown_beginning_names_the_cells_that_are_there(tmp_path: Path, prefix: str) -> None:
    with pytest.raises(NotRecordedError, match="these have records: abc123"):
        find(kept(tmp_path, "abc123"), prefix)


def test_a_failed_cell_has_nothing_to_reproduce(tmp_path: Path) -> None:
    failure = Failure(kind="diverged", message="nan", stage="s")
    RunFolder(tmp_path / "g").write_record(record("abc", status="failed", failure=failure))
    with pytest.raises(NotRecordedError, match="it failed \\(diverged\\)"):
        find(tmp_path, "abc")


def test_of_two_run_folders_the_one_that_is_done_counts(tmp_path: Path) -> None:
    failure = Failure(kind="diverged", message="nan", stage="s")
    RunFolder(tmp_path / "a").write_record(record("abc", status="failed", failure=failure))
    done = RunFolder(tmp_path / "b").write_record(record("abc"))
    assert find(tmp_path, "abc")[0] == done


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


def test_a_copy_is_asked_for_the_record_as_it_stands_but_for_the_seed() -> None:
    recorded = {"seed": 0, "spec": {"seed": 0, "model": {}}, "metrics": {"top1": 1.0, "micro_batches": {"s": 4}}, "of_another_version": 1}
    assert with_seed(recorded, 0) is recorded
    assert with_seed(recorded, 3) == {"seed": 3, "spec": {"seed": 3, "model": {}}, "metrics": {"top1": 1.0}, "of_another_version": 1}


def test_numbers_and_machines_are_compared_by_name(tmp_path: Path) -> None:
    first, second = fake_record(97.0), fake_record(96.0, environment=fake_environment(host="another", threads=4))
    assert unequal(first, second) == ("top1", "top5", "val_top1") and unequal(first, first) == ()
    assert {name for name, value in machine(first.environment).items() if value != machine(second.environment)[name]} == {"threads"}
    RunFolder(tmp_path).write_record(first)
    assert records_in(tmp_path) == [first] and records_in(tmp_path / "nothing") == []
