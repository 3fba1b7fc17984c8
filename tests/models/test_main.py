"""`python -m models`: the table of models."""

import pytest

from models.__main__ import COLUMNS, entries, main, row
from models.registry import MODELS


def test_every_model_has_a_row_and_variants_load_no_official_weights() -> None:
    assert {name for name, _ in entries()} == set(MODELS)
    assert row("vim_micro", {}).startswith("| vim_micro | 32 | 146,570 |") and row("vim_micro", {}).endswith("| no |")
    assert row("vim_tiny", {}).endswith("| yes |") and row("vim_tiny", {"se": {}}).endswith("| no |")


def test_the_command_prints_a_markdown_table_with_a_line_for_each_entry(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("models.__main__.entries", lambda: iter([("vim_micro", {}), ("vim_micro", {"se": {}})]))
    main()
    heading, rule, *lines = capsys.readouterr().out.splitlines()
    assert heading == "| " + " | ".join(COLUMNS) + " |" and rule == "|---|---:|---:|---:|---:|---|"
    assert lines == [row("vim_micro", {}), row("vim_micro", {"se": {}})]
