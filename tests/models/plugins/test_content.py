"""What is read of a plug-in, and the digest that identifies it."""

import os
from pathlib import Path

import pytest

from models.plugins import content
from models.plugins.content import PluginError, digest_of, files_of, write_files


def package(folder: Path) -> Path:
    (folder / "parts").mkdir(parents=True)
    (folder / "__init__.py").write_text("from . import parts\n")
    (folder / "parts" / "__init__.py").write_bytes(b"")
    (folder / "table.json").write_text("[1]")
    return folder


def test_a_file_is_read_under_the_empty_name_so_that_its_own_decides_nothing(tmp_path: Path) -> None:
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text("MODELS = {}\n")
    assert files_of(tmp_path / "a.py") == files_of(tmp_path / "b.py") == {"": b"MODELS = {}\n"}


def test_a_package_is_all_its_files_but_caches_and_hidden_ones(tmp_path: Path) -> None:
    folder = package(tmp_path / "mine")
    (folder / "__pycache__").mkdir()
    for junk in ("__pycache__/x.cpython-311.pyc", ".hidden", "old.pyc"):
        (folder / junk).write_bytes(b"junk")
    assert sorted(files_of(folder)) == ["__init__.py", "parts/__init__.py", "table.json"]


def test_the_digest_changes_with_a_byte_a_name_and_a_named_row(tmp_path: Path) -> None:
    digests = {
        digest_of({"__init__.py": b""}),
        digest_of({"__init__.py": b" "}),
        digest_of({"__init__.py": b"", "a.py": b""}),
        digest_of({"__init__.py": b"", "b.py": b""}),
        digest_of({"__init__.py": b""}, [("models", "a", "m:a")]),
    }
    assert len(digests) == 5
    assert digest_of({"a": b"1", "b": b"2"}) == digest_of({"b": b"2", "a": b"1"})


@pytest.mark.parametrize("name", ["a.py", "mine"])
def test_a_written_copy_is_the_plug_in(tmp_path: Path, name: str) -> None:
    path = package(tmp_path / name) if name == "mine" else tmp_path / name
    if name == "a.py":
        path.write_bytes(b"x = 1\n")
    write_files(files_of(path), tmp_path / "copy" / name)
    assert files_of(tmp_path / "copy" / name) == files_of(path)


def refusal(path: Path) -> str:
    with pytest.raises(PluginError) as refused:
        files_of(path)
    return str(refused.value)


def test_a_path_that_is_no_plug_in_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "my_models.py").write_text("")
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "empty").mkdir()
    assert refusal(tmp_path / "my_model.py").endswith("my_model.py; did you mean 'my_models.py'?")
    assert "give a Python file (.py), or a folder with __init__.py" in refusal(tmp_path / "notes.txt")
    assert "it has no __init__.py" in refusal(tmp_path / "empty")
    refused = refusal(tmp_path / ("x" * 300))
    assert "cannot be read" in refused or "there is no file" in refused, "since Python 3.14, a name that is too long is one that is not there"


def test_links_to_files_count_as_files_and_other_links_are_refused(tmp_path: Path) -> None:
    folder = package(tmp_path / "mine")
    (tmp_path / "outside.py").write_text("x = 1\n")
    (folder / "linked.py").symlink_to(tmp_path / "outside.py")
    assert files_of(folder)["linked.py"] == b"x = 1\n"
    (folder / "self").symlink_to(folder)
    assert "no link to a folder" in refusal(folder)
    (folder / "self").unlink()
    (folder / "gone").symlink_to(tmp_path / "nowhere")
    assert str(folder / "gone") in refusal(folder)
    (folder / "gone").unlink()
    os.mkfifo(folder / "pipe")
    assert str(folder / "pipe") in refusal(folder)


def test_a_plug_in_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = package(tmp_path / "mine")
    monkeypatch.setattr(content, "MOST_FILES", 2)
    assert "is too large" in refusal(folder)
    monkeypatch.setattr(content, "MOST_BYTES", 4)
    (tmp_path / "a.py").write_bytes(b"12345")
    assert "keep data and weights elsewhere" in refusal(tmp_path / "a.py")
