"""Records come back as they were written; those that are torn or of another schema are refused."""

from pathlib import Path

import pytest

from jobs.experiment.records import read_record
from jobs.experiment.run_folder import RunFolder
from tests.support.failures import failed_record


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert read_record(run.write_record(failed_record())) == failed_record()


def test_a_torn_record_is_refused(tmp_path: Path) -> None:
    path = RunFolder(tmp_path).write_record(failed_record())
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="record.json is not a record"):
        read_record(path)


def test_a_record_with_a_field_of_another_schema_is_refused(tmp_path: Path) -> None:
    path = RunFolder(tmp_path).write_record(failed_record())
    path.write_text(path.read_text().replace('"seed"', '"sede"'))
    with pytest.raises(ValueError, match="sede"):
        read_record(path)
