"""The index of a run folder."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.experiment.ids import CellId, StageId
from jobs.experiment.index import CellEntry, RunIndex, RunIndexError, StageEntry, read_index, write_index
from jobs.experiment.run_folder import RunFolder
from tests.support.runs import FakeRun

ROOT = Path(__file__).resolve().parents[3]
OF_0_1 = RunFolder(ROOT / "tests" / "fixtures" / "run_of_0_1" / "small")
STAGE, CELL = StageId("aaa"), CellId("bbb")
INDEX = RunIndex(
    grid="small",
    file="grid.yaml",
    cluster="local",
    stages={STAGE: StageEntry(kind="vim_micro  train", seed=0, epochs=2)},
    cells={CELL: CellEntry(title="vim_micro  dense  seed 0", stages=(STAGE,))},
)


def test_an_index_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_index(RunFolder(tmp_path), INDEX)
    assert read_index(RunFolder(tmp_path)) == INDEX and INDEX.stages[STAGE].title == "vim_micro  train  seed 0"


def test_titles_of_old_labels_are_read_on_one_line(tmp_path: Path) -> None:
    stages = {STAGE: StageEntry(kind="a\nb  train", seed=0, epochs=2)}
    cells = {CELL: CellEntry(title="\x1b[2Jb  seed 0", stages=(STAGE,))}
    write_index(RunFolder(tmp_path), replace(INDEX, stages=stages, cells=cells))
    index = read_index(RunFolder(tmp_path))
    assert index.stages[STAGE].kind == r"a\nb  train" and index.cells[CELL].title == r"\x1b[2Jb  seed 0"


def test_the_index_of_version_0_1_is_read() -> None:
    index = read_index(OF_0_1)
    assert (index.grid, index.cluster, len(index.stages), len(index.cells)) == ("small", "local", 17, 10)
    stage = index.stages[StageId("ee516d283a22")]
    assert stage.seed is None and stage.title.endswith("seed 0") and stage.epochs == 2
    assert index.cells[CellId("80289ccf7706")].stages[-1] == "ee516d283a22"


def test_a_launch_writes_the_words_of_its_grid(fake: FakeRun) -> None:
    index = read_index(fake.run)
    assert index.stages[fake.trunks[0]].title == "vim_micro  train  seed 0"
    assert [entry.title for entry in index.cells.values()][:2] == ["vim_micro  dense  seed 0", "vim_micro  dense  seed 1"]
    assert {index.stages[path.stages[1]].kind for path in fake.paths} >= {"vim_micro  finetune magnitude(0.5)", "vim_micro  finetune magnitude(0.9)"}


def test_the_command_that_resumes_a_run_names_another_folder_of_runs(tmp_path: Path) -> None:
    assert INDEX.launch_command(RunFolder(Path("runs/small"))) == "python -m harness.launch grid.yaml"
    assert INDEX.launch_command(RunFolder(tmp_path / "small")) == f"python -m harness.launch grid.yaml --runs {tmp_path}"


def test_a_folder_without_an_index_says_how_to_launch(tmp_path: Path) -> None:
    with pytest.raises(RunIndexError, match="no grid was launched there. Launch one with: python -m harness.launch"):
        read_index(RunFolder(tmp_path))


@pytest.mark.parametrize("content", ["", '{"grid": "small"', "{}", "[]", '{"grid": 1, "file": "", "cluster": "", "stages": {"a": [1]}, "cells": {}}'])
def test_a_damaged_index_is_named_with_the_remedy(tmp_path: Path, content: str) -> None:
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(RunIndexError, match="index.json is damaged .*Launch the grid again"):
        read_index(RunFolder(tmp_path))


def test_reading_an_index_needs_no_models() -> None:
    code = "import jobs.experiment.index, sys; print(*[name for name in sys.modules if name.startswith(('models.', 'torch'))])"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    assert loaded == ["models.closed_pipe"]
