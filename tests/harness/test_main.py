"""`python -m harness`: the list of commands."""

import subprocess
import sys
from pathlib import Path

import pytest

from harness import status
from harness.__main__ import COMMANDS, main

ROOT = Path(__file__).resolve().parents[2]


def test_every_command_has_a_line_with_its_arguments_and_its_purpose(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")}
    modules = {path.stem for path in (ROOT / "harness").glob("*.py") if "\ndef main(" in path.read_text()} - {"__main__"}
    assert tuple(lines) == COMMANDS and set(COMMANDS) == modules
    assert "status [grid.yaml | run folder] [--watch | --json]  shows the cells of a grid by state" in lines["status"]
    assert main(["--help"]) == 0 and capsys.readouterr().out.splitlines()[2:] == list(lines.values())


def test_an_unknown_command_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lanch", "grid.yaml"]) == 2
    valid = "doctor, launch, prepare, status, logs, cancel, reproduce, verify, check, export"
    assert capsys.readouterr().err == f"no command 'lanch'; did you mean 'launch'? valid: {valid}\n"


def test_a_command_runs_with_its_arguments_and_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []
    monkeypatch.setattr(status, "main", lambda arguments: given.append(arguments) or 7)
    assert main(["status", "small", "--watch"]) == 7 and given == [["small", "--watch"]]


def test_the_list_loads_neither_torch_nor_the_commands() -> None:
    code = "import sys, harness.__main__ as m; m.main([]); sys.exit(any(n in sys.modules for n in ('torch', 'pydantic', 'rich', 'harness.launch')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True).returncode == 0
