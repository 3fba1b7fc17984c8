"""The command: what it prints, and its exit codes."""

import json
from pathlib import Path

import pytest

from harness.check import main
from tests.support.runs import FakeRun


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nothing")]) == 2
    assert "no run folder" in capsys.readouterr().err


def test_what_is_found_is_printed_by_rule(fake: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    fake.record(fake.paths[0])
    assert main([str(fake.run.path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(" 3  broken") for line in lines), "five cells have no record"
    assert any("it was planned and has no record" in line for line in lines)
    assert lines[-1].startswith("1 record: ") and lines[-1].endswith("docs/rules.md has the reasons")


def test_scripts_get_json(fake: FakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    fake.record(fake.paths[0])
    assert main([str(fake.run.path), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["records"] == 1 and [rule["rule"] for rule in told["rules"]] == list(range(1, 18))
    assert [rule["state"] for rule in told["rules"]][2] == "broken"


@pytest.mark.parametrize("number", ["-1", "many", "1.5"])
def test_a_number_of_cells_that_is_none_is_refused(tmp_path: Path, number: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path), "--evaluate", number])
    assert ended.value.code == 2 and "expected a number of cells" in capsys.readouterr().err
