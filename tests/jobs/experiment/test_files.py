"""Files are written whole or not at all."""

import hashlib
import json
from pathlib import Path

import pytest

from jobs.experiment.files import sha256_of, write_json, write_text, written_aside


def test_a_writer_that_fails_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, 1)
    with pytest.raises(RuntimeError), written_aside(path) as aside:
        aside.write_text("half")
        raise RuntimeError
    assert path.read_text() == "1\n"
    assert list(tmp_path.iterdir()) == [path]


def test_json_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_json(tmp_path / "new folder" / "a.json", {"b": [1, None], "a": "é"})
    assert json.loads((tmp_path / "new folder" / "a.json").read_text()) == {"a": "é", "b": [1, None]}


def test_text_is_written_unchanged(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.csv", "é\r\nb\n")
    assert path.read_bytes() == "é\r\nb\n".encode()


def test_the_digest_is_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
