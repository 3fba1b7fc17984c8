"""A run folder of version 0.1.0 is still read, and a second launch finishes it. tests/fixtures/run_of_0_1/README.md says how it was made."""

import csv
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from analysis.__main__ import main as analyse
from analysis.csv_files import read_csv
from harness.launch import NOTHING_TO_DO, SOME_FAILED
from harness.launch import main as launch
from harness.logs import main as show_logs
from harness.monitor.survey import STATES
from harness.reproduce import REPRODUCED, machine
from harness.reproduce import main as reproduce
from harness.status import main as show_status
from jobs.experiment.records import Record, read_record

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "run_of_0_1"
KILLED, NOT_BEGUN = "ee516d283a22", "817059c62444"  # stages: of 80289ccf7706 and of 3250f91784b2
WEIGHTS = {  # of the two cells, as version 0.1.0 finished them
    "80289ccf7706": "1899049cfb78cc9af62202b2490f915dd4e34fde48ce7ba57cbda91f4fc3e94c",
    "3250f91784b2": "4a3022bdbd30c41caee1c536251cecf73236819647a5ebb2a8c5b67c0ed8254e",
}


def copied(folder: Path) -> Path:
    """`folder` with the grid and a copy of the run, whose files are an hour old: no process seems to be alive."""
    folder.mkdir(exist_ok=True)
    shutil.copytree(FIXTURE / "small", folder / "runs" / "small")
    shutil.copy(FIXTURE / "small" / "grid.yaml", folder)
    now = (folder / "grid.yaml").stat().st_mtime
    for path in folder.rglob("*"):
        os.utime(path, (now - 3600, now - 3600))
    return folder


@dataclass(frozen=True, kw_only=True)
class Ended:
    """The exit code of a command, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


def run(main: Callable[[Sequence[str]], int], *arguments: str, cwd: Path) -> Ended:
    """A command, run in this process: what is read and resumed is the matter here. What a process needs is in tests/harness/test_launch.py."""
    with chdir(cwd), redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        code = main(arguments)
    return Ended(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())


def record(folder: Path, cell: str) -> Record:
    """The record of a cell."""
    return read_record(folder / "runs" / "small" / "cells" / cell / "record.json")


def metrics(folder: Path, stage: str) -> list[str]:
    """The lines of a stage's metrics.jsonl."""
    return (folder / "runs" / "small" / "stages" / stage / "metrics.jsonl").read_text().splitlines()


def facts(status: str) -> dict[str, object]:
    """The numbers and names in a status, whatever its words."""
    lines = [line.split() for line in status.splitlines()]
    header = next(index for index, words in enumerate(lines) if words[:1] == ["done"] and set(words) <= set(STATES))
    return {
        "cells": re.search(r"(\d+) of (\d+) cells done\s+\((\S+)\)", status).groups(),  # type: ignore[union-attr]
        "states": dict(zip(lines[header], map(int, lines[header + 1]), strict=True)),
        "stages": re.search(r"(\d+) of (\d+) stages done, .+ of training used", status).groups(),  # type: ignore[union-attr]
        "failures": re.findall(r"^(\d+) cells?, (\d+) stages?: (\w+) at (\S+) in (\w+), on (\S+) \((\d+)\)$", status, re.M),
        "excerpt": [line for line in status.splitlines() if line.startswith("    ")],
        "logs": re.findall(r"python -m harness\.logs (\w+)", status),
        "open": re.findall(r"(\d+)(?= open cells| cells are open)", status),
        "commands": re.findall(r"python -m harness\.launch grid\.yaml(?: --retry-failed)?$", status, re.M),
    }


def test_status_says_what_version_0_1_said(tmp_path: Path) -> None:
    done = run(show_status, "runs/small", cwd=copied(tmp_path))
    assert done.returncode == 0, done.stderr
    expected = facts((FIXTURE / "expected" / "status.txt").read_text())
    assert facts(done.stdout) == expected
    assert expected["states"] == {"done": 6, "running": 0, "queued": 0, "blocked": 0, "failed": 2, "open": 2}


def test_logs_shows_the_job_of_a_stage_and_of_a_cell(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    for name in (KILLED[:6], "80289ccf"):
        done = run(show_logs, name, cwd=folder)
        assert done.returncode == 0 and f"stage {KILLED}: vim_nano  round_2  seed 0" in done.stdout, done.stderr


def test_the_analysis_gives_the_same_tables(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    done = run(analyse, "runs/small", "-o", "out", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("leaderboard.csv", "cells.csv"):
        now, then = (list(csv.reader((path / name).read_text().splitlines())) for path in (folder / "out", FIXTURE / "expected"))
        rows, old = ([dict(zip(lines[0], line, strict=True)) for line in lines[1:]] for lines in (now, then))
        # Empty now: columns that version 0.1 did not have, and intervals, which it gave of two seeds.
        empty = {column for column in now[0] if column not in then[0] or "_ci95_" in column}
        assert not any(row[column] for row in rows for column in empty)
        assert [{column: row[column] for column in row if column not in empty} for row in rows] == [
            {column: row[column] for column in row if column not in empty} for row in old
        ]
        assert set(then[0]) <= set(now[0])


def test_a_label_that_changes_after_the_run_stands_in_the_tables_of_the_next_launch(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    text = (folder / "grid.yaml").read_text()
    for old, new in {
        "  - &ticket": "  # - &ticket",
        "  - {<<": "  # - {<<",
        "label: vim_nano": "label: renamed",
        "sparsity: 0.5": "sparsity: 0.5, label: half",
    }.items():
        assert old in text
        text = text.replace(old, new)
    text = re.sub(r"exclude:\n  - .*\n", "exclude:\n", text)  # its pruning is gone
    (folder / "grid.yaml").write_text(text)
    before = {path: path.read_bytes() for path in folder.glob("runs/small/cells/*/record.json")}
    done = run(launch, "grid.yaml", cwd=folder)
    assert done.returncode == NOTHING_TO_DO and "the labels of this grid for 6 cells" in done.stdout, done.stdout + done.stderr
    rows = [(row["model"], row["pruning"]) for row in read_csv(folder / "runs" / "small" / "leaderboard.csv")]
    assert rows == [("renamed", "dense"), ("vim_nano", "iterative_magnitude(0.5, rate=0.5, rounds=1, rewind_step=10)"), ("renamed", "half")] + [
        ("renamed", "dense"),
        ("renamed", "half"),
    ]
    again = run(launch, "grid.yaml", cwd=folder)
    assert again.returncode == NOTHING_TO_DO and "labels" not in again.stdout, again.stdout
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.slow
def test_a_recorded_cell_is_reproduced(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    done = run(reproduce, "e1223af3", cwd=folder)
    assert "cell e1223af3233a: vim_nano, dense, seed 0, recorded in runs/small/cells/e1223af3233a/record.json" in done.stdout, done.stderr
    repeated = read_record(folder / "runs" / "small" / "reproductions" / "1" / "cells" / "e1223af3233a" / "record.json")
    assert repeated.status == "done"
    if machine(repeated.environment) == machine(record(folder, "e1223af3233a").environment):
        assert done.returncode == REPRODUCED and "reproduced: equal to the bit" in done.stdout, done.stdout


@dataclass(frozen=True, kw_only=True)
class Resumed:
    """The run after a second launch."""

    folder: Path
    launch: Ended


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> Resumed:
    """A copy of the run that was launched again, with the jobs in this process, where they need not import torch anew."""
    folder = copied(tmp_path_factory.mktemp("resumed"))
    text = (folder / "grid.yaml").read_text()
    (folder / "grid.yaml").write_text(text.replace("kind: local", "kind: debug").replace("profile_s: 0.2", "profile_s: 0.001"))
    return Resumed(folder=folder, launch=run(launch, "grid.yaml", cwd=folder))


@pytest.mark.slow
def test_a_second_launch_runs_the_open_cells_alone(resumed: Resumed) -> None:
    assert resumed.launch.returncode == SOME_FAILED, resumed.launch.stdout + resumed.launch.stderr
    assert "small: 2 of 10 cells to run, in 2 jobs, in runs/small" in resumed.launch.stdout
    status = facts(run(show_status, "runs/small", cwd=resumed.folder).stdout)
    assert status["cells"] == ("8", "10", "runs/small") and status["stages"][:2] == ("14", "17")  # type: ignore[index]
    assert status["states"] == {"done": 8, "running": 0, "queued": 0, "blocked": 0, "failed": 2, "open": 0}
    old = [path.relative_to(FIXTURE / "small") for path in FIXTURE.glob("small/cells/*/record.json")]
    old += [path.relative_to(FIXTURE / "small") for path in FIXTURE.glob("small/stages/*/*.json*") if path.parent.name != KILLED]
    assert [path for path in old if (resumed.folder / "runs" / "small" / path).read_bytes() != (FIXTURE / "small" / path).read_bytes()] == []
    assert run(launch, "grid.yaml", cwd=resumed.folder).returncode == NOTHING_TO_DO


@pytest.mark.slow
def test_the_killed_stage_resumes_from_its_checkpoint(resumed: Resumed) -> None:
    before = (FIXTURE / "small" / "stages" / KILLED / "metrics.jsonl").read_text().splitlines()
    lines = metrics(resumed.folder, KILLED)
    assert lines[: len(before)] == before, "what was trained before the kill was not trained again"
    after = [json.loads(line) for line in lines[len(before) :]]
    assert {(line["event"], line["step"]) for line in after} == {("step", 40), ("epoch", 40)}
    assert {json.loads(line)["step"] for line in metrics(resumed.folder, NOT_BEGUN)} == {20, 40}


@pytest.mark.slow
@pytest.mark.parametrize("cell", WEIGHTS)
def test_its_cells_end_in_the_weights_of_version_0_1(resumed: Resumed, cell: str) -> None:
    ended = record(resumed.folder, cell)
    assert ended.status == "done" and ended.metrics is not None
    if machine(ended.environment) != machine(record(resumed.folder, "e1223af3233a").environment):
        pytest.skip("the fixture was made on another CPU, or with other packages or another build of the scan")
    assert ended.weights_sha256 == WEIGHTS[cell]
