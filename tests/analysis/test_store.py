import os
import shutil
from pathlib import Path

import pytest

import analysis.merge
from analysis.merge import collect, merge
from analysis.store import HEADER, readers
from tests.support.records import fake_grid, fake_record, fake_run


def aged(run: Path, changed: int = 1_000_000) -> Path:
    """The run folder, its records last changed long ago, or at another moment."""
    for path in run.glob("cells/*/record.json"):
        os.utime(path, (changed, changed))
    return run


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The cells whose files are read from now on."""
    seen: list[str] = []
    read = analysis.merge.read_entry

    def watched(path: str, size: int, mtime_ns: int) -> object:
        seen.append(Path(path).parent.name)
        return read(path, size, mtime_ns)

    monkeypatch.setattr(analysis.merge, "read_entry", watched)
    return seen


def test_a_later_merge_reads_what_is_new_alone_and_says_the_same(tmp_path: Path, reads: list[str]) -> None:
    run, store = aged(fake_run(tmp_path / "run", fake_grid())), tmp_path / "store"
    first = merge([run], store)
    reads.clear()
    assert merge([run], store) == first and reads == []
    new = fake_record(50.0, model="new")
    fake_run(run, [new])
    assert len(merge([run], store).records) == len(first.records) + 1 and reads == [new.id]


def test_with_and_without_a_store_the_result_is_the_same(tmp_path: Path) -> None:
    run, store = aged(fake_run(tmp_path / "run", [*fake_grid(), fake_record(None, seed=9)])), tmp_path / "store"
    assert merge([run]) == merge([run], store) == merge([run], store)


def test_a_record_that_changed_is_read_again(tmp_path: Path) -> None:
    run, store = aged(fake_run(tmp_path / "run", [fake_record(None), fake_record(91.0, seed=1)])), tmp_path / "store"
    assert [record.status for record in merge([run], store).records].count("failed") == 1
    fake_run(run, [fake_record(90.0)])
    assert sorted(record.metrics.top1 for record in merge([run], store).records if record.metrics) == [90.0, 91.0]


def test_a_file_of_this_very_moment_is_not_trusted_to_stay(tmp_path: Path, reads: list[str]) -> None:
    run, store = aged(fake_run(tmp_path / "run", [fake_record(90.0)]), 2**31), tmp_path / "store"  # not old before this test has ended
    merge([run], store)
    merge([run], store)
    assert len(reads) == 2


def test_a_record_that_is_gone_is_not_remembered(tmp_path: Path) -> None:
    gone = fake_record(90.0)
    run, store = aged(fake_run(tmp_path / "run", [gone, fake_record(91.0, seed=1)])), tmp_path / "store"
    merge([run], store)
    shutil.rmtree(run / "cells" / gone.id)
    assert [record.seed for record in merge([run], store).records] == [1]


def test_a_copied_run_adds_no_second_copy_of_its_records(tmp_path: Path) -> None:
    run, store = aged(fake_run(tmp_path / "run", [fake_record(90.0)])), tmp_path / "store"
    merge([run], store)
    alone = store.stat().st_size
    aged(Path(shutil.copytree(run, tmp_path / "copy")))
    both = [run, tmp_path / "copy"]
    assert len(merge(both, store).records) == 1 and store.stat().st_size < 1.5 * alone
    assert len(merge([tmp_path / "copy"], store).records) == 1


def test_the_store_only_grows(tmp_path: Path) -> None:
    run, store = aged(fake_run(tmp_path / "run", [fake_record(90.0)])), tmp_path / "store"
    merge([run], store)
    before = store.read_bytes()
    aged(fake_run(run, [fake_record(91.0, seed=1)]))
    merge([run], store)
    assert store.read_bytes().startswith(before) and len(store.read_bytes()) > len(before)


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95])
def test_a_torn_store_costs_reading_again_and_nothing_else(tmp_path: Path, keep: float, reads: list[str]) -> None:
    run, store = aged(fake_run(tmp_path / "run", [fake_record(90.0 + seed, seed=seed) for seed in range(3)])), tmp_path / "store"
    first = merge([run], store)
    whole = store.read_bytes()
    store.write_bytes(whole[: int(keep * len(whole))])
    assert merge([run], store) == first
    reads.clear()
    assert merge([run], store) == first and reads == []


@pytest.mark.parametrize(
    "content", [b"", b"not a store\n", b"\xff\x00\n", HEADER + b"a\tb\n\xff\t\t\t\t\t\t\t\t\t2\t{}\n", HEADER.replace(b"schema 1", b"schema 0")]
)
def test_a_foreign_or_older_store_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    run, store = aged(fake_run(tmp_path / "run", [fake_record(90.0)])), tmp_path / "store"
    store.write_bytes(content)
    assert merge([run], store) == merge([run]) == merge([run], store)


def test_entries_that_other_code_made_are_not_taken(tmp_path: Path) -> None:
    """A newer version may write fields that this one refuses, or give other keys to the same files."""
    run, store = aged(fake_run(tmp_path / "run", [fake_record(90.0)])), tmp_path / "store"
    first = merge([run], store)
    store.write_bytes(store.read_bytes().replace(readers().encode(), b"0" * 12).replace(b'"grid"', b'"gird"'))
    assert merge([run], store) == first == merge([run], store)


def test_conflicts_are_told_from_the_store_too(tmp_path: Path) -> None:
    a, b = (aged(fake_run(tmp_path / name, [fake_record(top1)])) for name, top1 in (("a", 90.0), ("b", 91.0)))
    assert len(merge([a, b], tmp_path / "store").conflicts) == len(merge([a, b], tmp_path / "store").conflicts) == 1


def test_equal_cells_with_different_ids_are_one_cell(tmp_path: Path) -> None:
    record = fake_record(90.0)
    run = fake_run(tmp_path, [record, record.model_copy(update={"id": "another"})])
    assert len(merge([run]).records) == 1


@pytest.mark.slow
def test_many_files_are_read_by_several_processes_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = fake_run(tmp_path / "run", fake_grid())
    (run / "cells" / "torn").mkdir()
    (run / "cells" / "torn" / "record.json").write_text("{")
    alone = collect([run], None)
    monkeypatch.setattr(analysis.merge, "MANY", 1)
    assert collect([run], None) == alone and len(alone.skipped) == 1
