"""The evaluation of official checkpoints, as a grid resolves it for each model."""

from pathlib import Path

import pytest

from harness.plan.preflight import files_of
from jobs.experiment.cell import Cell
from tests.support.grids import read

MODELS = (
    "models: [vim_tiny, {name: vim_tiny, pretrained: v.pth}, {name: mambavision_t, pretrained: t.pth}, {name: mambavision_b, pretrained: b.pth}]\n"
)
REST = "name: t\npruning: [dense, {method: magnitude, sparsity: 0.5}]\nseeds: [0]\nrecipe: {epochs: 0}\n"
DATA = "data: {source: imagefolder, path: images%s}\n"


@pytest.fixture(autouse=True)
def weights(folder: Path) -> None:
    for name in ("v", "t", "b"):
        Path(f"{name}.pth").write_text(name)


def crops(cells: tuple[Cell, ...]) -> dict[str, set[float]]:
    found: dict[str, set[float]] = {}
    for cell in cells:
        found.setdefault(cell.model.label, set()).add(cell.data.eval_crop)
    return found


def test_each_model_has_its_own_evaluation_and_the_launch_says_so() -> None:
    grid = read(MODELS + REST + DATA % "")
    labels = ["vim_tiny", "vim_tiny(pretrained=v.pth)", "mambavision_t(pretrained=t.pth)", "mambavision_b(pretrained=b.pth)"]
    assert crops(grid.cells) == dict(zip(labels, ({0.875}, {0.875}, {1.0}, {1.0}), strict=True))
    assert {cell.data.interpolation for cell in grid.cells} == {"area", "bicubic"}
    start, end = "grid.yaml:6: data: note: ", "as published; a value in the grid takes its place"
    assert grid.notes == (
        f"{start}interpolation bicubic for {labels[1]}, {end}",
        f"{start}eval_crop 1.0, interpolation bicubic for {labels[2]}, {labels[3]}, {end}",
    )


def test_a_value_of_the_grid_takes_its_place() -> None:
    grid = read(MODELS + REST + DATA % ", eval_crop: 0.9, interpolation: area")
    assert all(found == {0.9} for found in crops(grid.cells).values()) and not grid.notes
    assert {cell.data.interpolation for cell in grid.cells} == {"area"}


def test_the_id_holds_the_value() -> None:
    left = {cell.id: cell.data for cell in read(MODELS + REST + DATA % "").cells if cell.model.name == "mambavision_t"}
    given = {cell.id: cell.data for cell in read(MODELS + REST + DATA % ", eval_crop: 1.0").cells if cell.model.name == "mambavision_t"}
    assert left == given


def test_an_entry_that_says_what_another_leaves_out_is_the_same_cell_once() -> None:
    both = "data: [{source: imagefolder, path: images}, {source: imagefolder, path: images, eval_crop: 1.0}]\n"
    cells = read(MODELS + REST + both).cells
    assert len(cells) == len({cell.id for cell in cells}) == 12  # two models have two evaluations, two have one
    assert len({cell.data for cell in cells}) == 4


def test_data_are_looked_through_once_and_have_their_line() -> None:
    grid = read(MODELS + REST + DATA % "")
    (files,) = files_of(grid.cells)
    assert grid.location(files, "path") == "grid.yaml:6: data.path"
    assert {grid.location(cell.data) for cell in grid.cells} == {"grid.yaml:6: data"}
    assert len({id(cell.data) for cell in grid.cells}) == len({cell.data for cell in grid.cells})


def test_the_evaluation_of_a_checkpoint_goes_before_that_of_a_preset_and_the_preset_gives_the_rest() -> None:
    rest = REST.replace("recipe: {epochs: 0}", "recipe: {preset: mambavision_t, epochs: 0}")
    grid = read(MODELS + rest + DATA % "")
    labels = ["vim_tiny", "vim_tiny(pretrained=v.pth)", "mambavision_t(pretrained=t.pth)", "mambavision_b(pretrained=b.pth)"]
    assert crops(grid.cells) == dict(zip(labels, ({1.0}, {0.875}, {1.0}, {1.0}), strict=True))
    assert {(cell.data.interpolation, cell.data.augment, cell.data.flip) for cell in grid.cells} == {("bicubic", "crop", True)}
    assert "grid.yaml:6: data: note: eval_crop 0.875 for vim_tiny(pretrained=v.pth), as published; a value in the grid takes its place" in grid.notes
    assert crops(read(MODELS + rest + DATA % ", eval_crop: 0.9").cells) == dict.fromkeys(labels, {0.9})
