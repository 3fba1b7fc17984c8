"""`python -m harness.schemas`, which writes the schemas; tests/test_docs.py says whether they are current."""

from pathlib import Path

import pytest

from harness.schemas import descriptions
from harness.schemas.__main__ import DONE, FOLDER, SCHEMAS, USAGE, main, text, write


def test_it_prints_the_files_and_the_line_for_editors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == DONE
    printed = capsys.readouterr().out
    assert all(str(FOLDER / name) in printed for name in SCHEMAS) and "# yaml-language-server: $schema=" in printed


def test_it_writes_them_all(tmp_path: Path) -> None:
    assert write(tmp_path) == DONE
    assert (tmp_path / "grid.schema.json").read_text(encoding="utf-8") == text("grid.schema.json")
    assert {path.name for path in tmp_path.iterdir()} == set(SCHEMAS) == {path.name for path in FOLDER.glob("*.json")}


def test_without_the_pages_it_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(descriptions, "ROOT", tmp_path)
    assert write(tmp_path) == USAGE
    assert "checkout" in capsys.readouterr().err and not list(tmp_path.iterdir())
