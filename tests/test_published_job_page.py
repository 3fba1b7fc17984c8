"""docs/published_job.md says what its grids are."""

import re
from pathlib import Path

import pytest
import yaml

from harness.grid.read import read_grid
from tests.test_docs import blocks, text, written


def test_the_grids_of_the_published_job_have_the_cells_that_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = text("docs/published_job.md")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "vim_t_midclstok_76p1acc.pth").write_bytes(b"weights")
    paper, one_shot, tuned = (read_grid(written(grid)()) for grid in blocks("docs/published_job.md", "yaml"))
    assert paper.source.count("\n") <= 10 and {cell.recipe.epochs for cell in paper.cells} == {300} and len(paper.cells) == 3
    assert re.findall(r"This grid has (\d+) cells", page) == [str(len(grid.cells)) for grid in (one_shot, tuned)]
    assert {cell.data.eval_crop for grid in (paper, one_shot, tuned) for cell in grid.cells} == {0.875}


def test_the_published_job_names_every_official_file_of_the_grid() -> None:
    page, models = text("docs/published_job.md"), yaml.safe_load(text("slurm/grids/published.yaml"))["models"]
    assert [entry for entry in models if f"| {entry['name']} | {Path(entry['pretrained']).name} |" not in page] == []
