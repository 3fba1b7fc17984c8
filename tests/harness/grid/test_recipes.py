"""Recipes by name: a preset is its values, and any key of the grid goes before it."""

import hashlib
from pathlib import Path

import pytest
import yaml

from jobs.experiment.presets import PRESETS
from jobs.experiment.specs import Distillation
from tests.support.grids import START, mistakes, read


def spelled(name: str, **changes: object) -> str:
    """A grid that spells a preset's values out."""
    preset = PRESETS[name]
    content = {"recipe": preset.recipe_values() | changes, "data": {"source": "synthetic", **preset.data_values(), "samples": 20_000}}
    return START + yaml.safe_dump(
        {part: {key: list(v) if isinstance(v, tuple) else v for key, v in given.items()} for part, given in content.items()}
    )


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_the_ids_of_a_grid_that_spells_its_values_out(folder: Path, name: str) -> None:
    named = read(START + f"recipe: {{preset: {name}}}\ndata: {{source: synthetic, samples: 20000}}\n")
    written = read(spelled(name))
    assert [cell.id for cell in named.cells] == [cell.id for cell in written.cells]
    assert named.cells[0].to_json() == written.cells[0].to_json()
    assert name not in str(named.cells[0].to_json()["recipe"])


def test_any_key_goes_before_the_presets(folder: Path) -> None:
    grid = read(START + "recipe: {preset: vim_tiny, batch_size: 32, epochs: 6, mixup: 0}\ndata: {flip: false}\n")
    cell = grid.cells[0]
    assert (cell.recipe.batch_size, cell.recipe.epochs, cell.recipe.mixup, cell.recipe.cutmix) == (32, 6, 0.0, 1.0)
    assert (cell.data.flip, cell.data.augment, cell.data.interpolation) == (False, "crop", "bicubic")


def test_a_grid_without_a_preset_has_data_as_before_and_presets_of_one_grid_do_not_mix(folder: Path) -> None:
    grid = read(START + "recipe: [{batch_size: 32}, {preset: [vim_tiny, mambavision_t], batch_size: 32}]\n")
    plain, vim, mambavision = grid.cells
    assert plain.id == read(START + "recipe: {batch_size: 32}\n").cells[0].id
    assert (plain.data.augment, vim.data.augment) == ("none", "crop")
    assert (vim.data.eval_crop, mambavision.data.eval_crop) == (0.875, 1.0)
    assert {id(cell.data) for cell in (vim, mambavision)}.isdisjoint({id(plain.data)})


def test_the_values_are_told(folder: Path) -> None:
    (note,) = read(START + "recipe: {preset: vim_tiny, batch_size: 32, epochs: 6}\n").notes
    assert note.startswith("grid.yaml:5: recipe: note: preset vim_tiny: optimizer adamw, lr 0.001, min_lr 1e-05, lr_every epoch, warmup_epochs 5, ")
    assert "epochs 300" not in note and note.endswith("flip true, eval_crop 0.875, interpolation bicubic")


def test_an_unknown_preset_is_an_error_with_the_nearest_name(folder: Path) -> None:
    (mistake,) = mistakes(START + "recipe:\n  epochs: 3\n  preset: vim_tny\n")
    assert mistake.startswith("grid.yaml:7: recipe.preset: unknown value 'vim_tny'; did you mean 'vim_tiny'? valid: vim_tiny, vim_small, ")


def test_a_preset_can_contradict_what_the_grid_says(folder: Path) -> None:
    (mistake,) = mistakes(START + "recipe: {preset: vim_tiny, batch_size: 32, epochs: 4}\n")
    assert mistake == "grid.yaml:5: recipe.warmup_epochs: the warm-up, 5 epochs, is longer than the training, 4"
    (mistake,) = mistakes(START + "recipe: {preset: mambavision_t, batch_size: 32, ema: null}\n")
    assert mistake == "grid.yaml:5: recipe.mesa: it holds the network to its average: give ema, or leave mesa out"


def test_data_have_no_presets(folder: Path) -> None:
    (mistake,) = mistakes(START + "data: {preset: vim_tiny}\n")
    assert mistake.startswith("grid.yaml:5: data.preset: unknown key")


def test_the_dense_network_or_a_file_teaches(folder: Path) -> None:
    (folder / "w.pth").write_bytes(b"weights")
    dense, file = (
        read(START + f"recipe: {{distill: {{teacher: {teacher}, weight: 0.3}}}}\n").cells[0].recipe.distill for teacher in ("dense", "w.pth")
    )
    assert dense == Distillation(teacher="dense", weight=0.3) and dense.file is None
    digest = hashlib.sha256(b"weights").hexdigest()
    assert file == Distillation(teacher=str(folder / "w.pth"), weight=0.3, teacher_sha256=digest)
    assert read(START + "recipe: {distill: {teacher: gone.pth}}\n").cells[0].recipe.distill == Distillation(teacher=str(folder / "gone.pth"))
    temperatures = read(START + "recipe: {distill: {teacher: dense, temperature: [1, 4]}}\n").cells
    assert [cell.recipe.distill and cell.recipe.distill.temperature for cell in temperatures] == [1.0, 4.0]


@pytest.mark.parametrize(
    ("distill", "mistake"),
    [
        ("{weight: 0.5}", "recipe.distill.teacher: missing"),
        ("{teacher: dense, weight: 0}", "recipe.distill.weight: must be above 0 and at most 1, got 0.0"),
        ("{teacher: dense, temperature: 0}", "recipe.distill.temperature: must be above 0, got 0.0"),
        ("{teacher: dense, wieght: 0.1}", "recipe.distill.wieght: unknown key; did you mean 'weight'? valid: teacher, key, weight, temperature"),
        ("{teacher: 3}", "recipe.distill.teacher: expected text, got 3"),
        ("{teacher: dense, teacher_sha256: ab}", "recipe.distill.teacher_sha256: it is no key of a grid: the launch reads the teacher's file"),
        ("{teacher: dense, key: model_ema}", "recipe.distill.key: it chooses among the weights of a file, and the teacher is no file"),
    ],
)
def test_mistakes_in_a_distillation_have_their_line(folder: Path, distill: str, mistake: str) -> None:
    lines = mistakes(START + f"recipe:\n  distill: {distill}\n")
    assert any(line.startswith(f"grid.yaml:6: {mistake}") for line in lines), lines


def test_a_teacher_must_have_learnt_something_and_have_somebody_to_teach(folder: Path) -> None:
    (mistake,) = mistakes(START + "recipe:\n  epochs: 0\n  distill: {teacher: dense}\n")
    assert mistake.startswith("grid.yaml:7: recipe.distill: the dense vim_micro would teach with random weights: give it `pretrained`")
    lines = mistakes(START + "recipe: {epochs: 0, finetune_epochs: 0, distill: {teacher: dense}}\n")
    assert any("so nothing can be taught" in line for line in lines)
