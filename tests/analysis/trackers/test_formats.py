"""`--export`, whatever the format."""

from pathlib import Path

import pytest

from analysis.__main__ import FORMATS as CHOICES
from analysis.__main__ import main
from analysis.trackers import formats
from analysis.trackers.formats import FOLDER, FORMATS, export


def test_the_command_knows_all_formats() -> None:
    assert tuple(FORMATS) == CHOICES


def test_a_second_export_takes_the_place_of_the_first(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run / FOLDER / "every_eval_ever"
    assert main([str(run), "--export", "every_eval_ever"]) == 0
    first = {path: path.read_text() for path in folder.rglob("*.json")}
    (folder / "of_a_cell_that_is_gone.json").write_text("{}")
    assert main([str(run), "--export", "every_eval_ever", "--export", "every_eval_ever"]) == 0
    assert {path: path.read_text() for path in folder.rglob("*.json")} == first and len(first) == 2
    assert capsys.readouterr().out.count(str(folder)) == 2
    assert not (run / "leaderboard.csv").exists()


def test_a_missing_library_is_named_with_the_command_that_installs_it(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    assert main([str(run), "--export", "wandb"]) == 2
    assert "python -m pip install wandb" in capsys.readouterr().err and not (run / FOLDER).exists()


def test_the_tables_of_a_run_take_no_export_for_a_record(run: Path) -> None:
    export([run], run, "every_eval_ever")
    assert main([str(run)]) == 0
