"""A few fields of a large JSON file."""

from pathlib import Path

import msgspec
import pytest

from harness.monitor.json_fields import read_fields
from harness.monitor.survey import RECORD_FIELDS


class Fields(msgspec.Struct):
    """What is read."""

    train_s: float
    steps: int = 0


DECODER = msgspec.json.Decoder(Fields)


def test_the_named_fields_are_read_and_the_others_are_not(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"layers": {"a": [1, 2]}, "train_s": 7, "steps": 3}')
    assert read_fields(tmp_path / "result.json", DECODER) == Fields(train_s=7.0, steps=3)


def test_a_number_that_json_does_not_have_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"train_loss": NaN, "train_s": 7.5}')
    assert read_fields(tmp_path / "result.json", DECODER).train_s == 7.5


@pytest.mark.parametrize("content", ["", '{"train_s": 7', "{}", "[]", '{"train_s": "long"}', "\xff"])
def test_a_torn_or_foreign_file_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "result.json").write_text(content, encoding="latin-1")
    with pytest.raises(ValueError):
        read_fields(tmp_path / "result.json", DECODER)


def test_an_absent_file_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_fields(tmp_path / "result.json", DECODER)


@pytest.mark.parametrize("name", [b"caf\xe9", b"caf\\udce9"])
def test_text_that_is_no_utf_8_does_not_hide_the_fields(tmp_path: Path, name: bytes) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(b'{"host": "' + name + b'", "status": "done"}')
    assert read_fields(path, RECORD_FIELDS).status == "done"
