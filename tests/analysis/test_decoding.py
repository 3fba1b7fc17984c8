"""What msgspec reads is what pydantic reads."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from analysis.comparability import row_and_key
from analysis.decoding import checked_record, parts_of, stored_record
from jobs.experiment.records import Record
from jobs.experiment.run_folder import RunFolder
from tests.support.records import fake_grid, fake_record


def same(ours: Any, pydantics: Any) -> bool:
    """Whether every field, nested ones too, has the same value."""
    if isinstance(pydantics, BaseModel):
        return all(same(getattr(ours, name), getattr(pydantics, name)) for name in type(pydantics).model_fields)
    return bool(ours == pydantics)


def text(folder: Path, record: Record) -> bytes:
    return RunFolder(folder).write_record(record).read_bytes()


@pytest.mark.parametrize("record", [fake_record(97.0, pruning="magnitude-0.5"), fake_record(None), fake_record(96.0, top5=None, notes=[])])
def test_both_readers_find_what_was_written(tmp_path: Path, record: Record) -> None:
    content = text(tmp_path, record)
    for read in (checked_record(content), stored_record(content)):
        assert not isinstance(read, BaseModel) and same(read, record)


def test_a_value_that_msgspec_refuses_and_pydantic_takes_is_read(tmp_path: Path) -> None:
    content = text(tmp_path, fake_record(97.0, train_loss=float("nan")))
    read = checked_record(content)
    assert isinstance(read, BaseModel) and read.metrics is not None and read.metrics.train_loss != read.metrics.train_loss
    assert same(stored_record(content).environment, read.environment)


@pytest.mark.parametrize(("right", "wrong"), [(b'"top1": 97.0', b'"top1": "high"'), (b'"seed": 0', b'"sede": 0'), (b"0.5", b'{"a": 1}')])
def test_what_is_wrong_is_refused_in_pydantics_words(tmp_path: Path, right: bytes, wrong: bytes) -> None:
    content = text(tmp_path, fake_record(97.0, pruning="magnitude-0.5"))
    assert right in content
    with pytest.raises(ValidationError):
        checked_record(content.replace(right, wrong))


def test_rows_and_keys_do_not_depend_on_the_reader(tmp_path: Path) -> None:
    records = fake_grid(seeds=2)
    read = [stored_record(text(tmp_path, record)) for record in records]
    assert all(parts_of(record) is not None for record in read) and all(parts_of(record) is None for record in records)
    assert [row_and_key(record) for record in read] == [row_and_key(record) for record in records]
    assert len({row_and_key(record)[0] for record in read}) == len(records) / 2
