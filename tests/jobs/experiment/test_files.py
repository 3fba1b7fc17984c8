"""Files are written whole or not at all."""

import hashlib
import json
import os
from pathlib import Path

import msgspec
import pytest

from jobs.experiment.files import recognizable, sha256_of, this_host, well_formed, write_json, write_text, written_aside


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


FOREIGN = os.fsdecode(b"caf\xe9.png")  # a file name in Latin-1


@pytest.mark.parametrize(
    ("text", "written"),
    [(FOREIGN, "caf\\xe9.png"), ("\ud800 alone", "\\ud800 alone"), ("\U0001f600 \u4e2d\0\x1b\n", "\U0001f600 \u4e2d\0\x1b\n")],
)
def test_any_text_comes_back_from_json_in_a_form_that_a_strict_reader_takes(tmp_path: Path, text: str, written: str) -> None:
    path = tmp_path / "a.json"
    write_json(path, {text: [text, (text,), 1.5, None, {"a": text}]})
    assert msgspec.json.decode(path.read_bytes()) == {written: [written, [written], 1.5, None, {"a": written}]}
    assert recognizable(text) == recognizable(recognizable(text)) == written


@pytest.mark.parametrize("content", [b'{"a": "caf\\udce9.png"}', b'{"a": "caf\xe9.png"}', b'\xef\xbb\xbf{"a": "caf\xe9.png"}'])
def test_a_file_of_before_is_mended(content: bytes) -> None:
    assert msgspec.json.decode(well_formed(content)) == {"a": "caf\\xe9.png"}


@pytest.mark.parametrize("content", [b'{"a": "caf\xc3\xa9"}', b'{"a": "\\ud83d\\ude00"}', b"{", b"\x00\xff", b"[" * 100_000])
def test_a_file_that_is_well_formed_or_no_json_stays(content: bytes) -> None:
    assert well_formed(content) == content


def test_the_host_has_a_name_that_files_can_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: os.fsdecode(b"b\xfcro"))
    assert this_host() == "b\\xfcro"
