"""From grid.yaml to cells: their product, and all mistakes at once."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from harness.grid.read import read_grid
from models.pruning.base import Budget, Stage
from models.pruning.dense import Dense
from models.pruning.registry import METHODS
from tests.support.grids import START, labels, mistakes, read


def test_cells_are_the_product_of_models_methods_and_seeds(folder: Path) -> None:
    models = "[vim_micro, {name: vim_micro, se: {ratio: 2}}]"
    grid = read(f"name: t\nmodels: {models}\npruning: [dense, {{method: magnitude, sparsity: [0.5, 0.9]}}]\nseeds: [0, 4]\n")
    assert labels(grid) == [
        (model, method, seed)
        for model in ("vim_micro", "vim_micro+se(ratio=2)")
        for method in ("dense", "magnitude(0.5)", "magnitude(0.9)")
        for seed in (0, 4)
    ]
    assert len({cell.id for cell in grid.cells}) == 12


def test_the_text_is_kept_for_the_snapshot(folder: Path) -> None:
    grid = read(START + "# why\n")
    assert grid.source == START + "# why\n" and grid.path == Path("grid.yaml") and grid.name == "t"


def test_the_quickstart_has_two_models_three_prunings_and_two_seeds() -> None:
    grid = read_grid(Path(__file__).parents[3] / "grid.yaml")
    assert grid.name == "quickstart" and grid.cluster.kind == "local"
    assert labels(grid) == [
        (model, method, seed) for model in ("vim_micro", "vim_micro+se") for method in ("dense", "magnitude 50%", "magnitude 90%") for seed in (0, 1)
    ]


def test_reading_a_grid_imports_no_torch(folder: Path) -> None:
    Path("grid.yaml").write_text(START)
    grid = str(Path("grid.yaml").resolve())
    script = f"import pathlib, sys\nfrom harness.grid.read import read_grid\nread_grid(pathlib.Path({grid!r}))\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[3]).returncode == 0


def test_a_batch_is_not_held_against_images_that_nobody_has_counted(folder: Path) -> None:
    assert read(START + "data: {source: beton, path: a, test_path: b}\nrecipe: {batch_size: 100000}\n").cells


def test_a_step_to_rewind_to_that_the_training_never_makes_is_refused(folder: Path) -> None:
    rewinding = "\n- dense\n- method: iterative_magnitude\n  rounds: 1\n  rewind_step: %d"
    text = START.replace("[dense]", rewinding) + "recipe: {epochs: 2, batch_size: 64}\n"
    assert len(read(text % 40).cells) == 2
    (found,) = mistakes(text % 41)
    assert found == "grid.yaml:7: pruning[1]: rewinds to step 41, but train ends at step 40 (with the recipe of line 9 and digits)"


@pytest.mark.parametrize("key", ["name", "models", "pruning", "seeds"])
def test_a_key_that_is_missing_is_named(folder: Path, key: str) -> None:
    (found,) = mistakes("".join(line + "\n" for line in START.splitlines() if not line.startswith(key)))
    assert found.startswith(f"grid.yaml:1: {key}: missing: ")


def test_all_mistakes_are_reported_at_once_in_the_order_of_the_file(folder: Path) -> None:
    found = mistakes(
        "name: a b\ndata: {source: digit, val_fraction: 1.5}\nrecipe: {epocs: 3, lr: true, ema: 2}\n"
        "models: [vim_tny, {name: vim_micro, se: {ration: 3}, depth: 0}]\npruning: [{method: magnitude}, magnitud]\n"
        "seeds: [0, 0]\nexclude: [{modl: x}]\ncluster: {partion: x, nodes: 0}\n"
    )
    assert [line.split(": ")[0:2] for line in found] == [
        ["grid.yaml:1", "name"],
        ["grid.yaml:2", "data.source"],
        ["grid.yaml:2", "data.val_fraction"],
        ["grid.yaml:3", "recipe.ema"],
        ["grid.yaml:3", "recipe.epocs"],
        ["grid.yaml:3", "recipe.lr"],
        ["grid.yaml:4", "models[0]"],
        ["grid.yaml:4", "models[1].depth"],
        ["grid.yaml:4", "models[1].se.ration"],
        ["grid.yaml:5", "pruning[0]"],
        ["grid.yaml:5", "pruning[1]"],
        ["grid.yaml:6", "seeds[1]"],
        ["grid.yaml:7", "exclude[0].modl"],
        ["grid.yaml:8", "cluster.nodes"],
        ["grid.yaml:8", "cluster.partion"],
    ]


def test_a_method_that_cannot_run_on_the_epochs_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Long(Dense):
        """A control that wants ten epochs."""

        def stages(self, budget: Budget) -> tuple[Stage, ...]:
            if budget.epochs < 10:
                raise ValueError(f"dense wants 10 epochs, got {budget.epochs}")
            return super().stages(budget)

    monkeypatch.setitem(METHODS, "dense", Long)
    assert mistakes(START + "recipe: {epochs: [9, 10]}\n") == ["grid.yaml:3: pruning[0]: dense wants 10 epochs, got 9 (with the recipe of line 5)"]


WEIGHTS = (
    "name: t\nmodels: [vim_micro, {name: vim_micro, pretrained: w.pth, label: given}]\nseeds: [0]\nrecipe:\n- {epochs: 0, finetune_epochs: [0, 1]}\n"
)


def test_what_nobody_trains_and_what_needs_training_is_named(folder: Path) -> None:
    Path("w.pth").write_bytes(b"weights")
    methods = "pruning: [dense, magnitude, dynamic, {method: gradient, criterion: movement}]\n".replace(
        "magnitude", "{method: magnitude, sparsity: 0.5}"
    )
    methods = methods.replace("dynamic", "{method: dynamic, sparsity: 0.5}").replace("movement", "movement, sparsity: 0.5")
    found = mistakes(WEIGHTS + methods)
    assert [line.split(": ")[1] for line in found] == ["recipe[0].epochs", "pruning[2]", "pruning[3]"]
    assert "vim_micro has no weights: give it `pretrained`" in found[0]
    assert "dynamic prunes while it trains" in found[1] and "movement" in found[2]


def test_excluded_pairs_are_not_held_against_a_grid_without_epochs(folder: Path) -> None:
    Path("w.pth").write_bytes(b"weights")
    methods = "pruning: [dense, {method: magnitude, sparsity: 0.5}, {method: dynamic, sparsity: 0.5}]\n"
    patterns = "exclude: [{model: {label: vim_micro}, recipe: {finetune_epochs: 0}}, {pruning: dynamic, recipe: {finetune_epochs: 0}}]\n"
    cells = read(WEIGHTS + methods + patterns).cells
    assert len(cells) == 8 and {cell.pruning for cell in cells if cell.recipe.finetune_epochs == 0} == {"dense", "magnitude(0.5)"}
    assert len(mistakes(WEIGHTS + methods + patterns.replace("pruning: dynamic", "pruning: magnitude"))) == 1


ENTRIES = {
    "bad name": ("name: a/b", "1: name: must be letters, digits, '.', '_' and '-', got 'a/b'"),
    "name is a number": ("name: 3", "1: name: must be letters, digits, '.', '_' and '-', got 3"),
}


@pytest.mark.parametrize("lines, said", ENTRIES.values(), ids=ENTRIES)
def test_a_bad_entry_is_named_with_its_line_and_key(folder: Path, lines: str, said: str) -> None:
    rest = [line for line in START.splitlines() if line.split(":")[0] != lines.split(":")[0]]
    (found,) = mistakes("\n".join([lines, *rest]) + "\n")
    assert found.startswith(f"grid.yaml:{said}")


# What is added to a good grid, and the line that it gives
MISTAKES = {
    "unknown key": ("recpe: {epochs: 3}", "5: recpe: unknown key; did you mean 'recipe'? valid: name, data, recipe, tune, models, pruning, "),
    "batch above the digits": (
        "recipe:\n  epochs: 2\n  batch_size: 2048",
        "7: recipe.batch_size: 2048 is more than the 1294 training images of digits (val_fraction 0.1 is held out); use at most 1294",
    ),
    "no digit held out": (
        "data:\n  val_fraction: 1.0e-4",
        "6: data.val_fraction: of 1438 training images, 0.0001 holds out no image: give more images, or raise it",
    ),
    "no image held out, for each class keeps its only image": (
        "data: {source: synthetic, samples: 10, classes: 10, val_fraction: 0.5}\nrecipe: {batch_size: 2}",
        "5: data.val_fraction: of 10 training images, 0.5 holds out no image: ",
    ),
    "batch above a synthetic set": (
        "data: {source: synthetic, samples: 100, val_fraction: 0.25}\nrecipe: {batch_size: 76}",
        "6: recipe.batch_size: 76 is more than the 75 training images of synthetic (val_fraction 0.25 is held out); use at most 75",
    ),
}


@pytest.mark.parametrize("added, said", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_with_its_line_and_key(folder: Path, added: str, said: str) -> None:
    (found,) = mistakes(START + added + "\n")
    assert found.startswith(f"grid.yaml:{said}")


def test_a_part_of_a_cell_is_located_in_the_grid(folder: Path) -> None:
    grid = read(START + "recipe:\n- epochs: 2\n  lr: 0.1\n")
    cell = grid.cells[0]
    assert grid.location(cell.model) == "grid.yaml:2: models[0]"
    assert grid.location(cell.recipe, "lr") == "grid.yaml:7: recipe[0].lr"
    assert grid.location(replace(cell.recipe, lr=0.2)) == "grid.yaml"


def test_a_grid_of_too_many_cells_is_refused_before_they_are_made(folder: Path) -> None:
    text = START.replace("[0]", "10000") + f"recipe: {{lr: {[number / 1000 for number in range(1, 102)]}}}\n"
    (line,) = mistakes(text)
    assert line.startswith("grid.yaml:1: the grid stands for 1010000 cells (1 of model, 1 of pruning, 1 of data, 101 of recipe, 10000 of seed), and")


def test_stochastic_depth_is_given_by_the_recipe_or_by_the_model(folder: Path) -> None:
    recipe = "recipe:\n  drop_path: 0.3\n"
    assert read(START + recipe).cells[0].recipe.drop_path == 0.3
    both = START.replace("[vim_micro]", "[{name: vim_micro, drop_path: 0.2}]") + recipe
    assert mistakes(both) == [
        "grid.yaml:6: recipe.drop_path: vim_micro(drop_path=0.2) has a drop_path of its own (line 2); give it in one of the two"
    ]
    assert mistakes(START.replace("[vim_micro]", "[timm/vgg11]") + recipe) == [
        "grid.yaml:6: recipe.drop_path: timm/vgg11 has no stochastic depth; leave drop_path out"
    ]
    own = both.replace("vim_micro, drop_path", "timm/resnet18, drop_path_rate")
    assert "timm/resnet18(drop_path_rate=0.2) has a drop_path_rate of its own (line 2)" in mistakes(own)[0]


def test_a_preset_with_stochastic_depth_says_how_to_go_without(folder: Path) -> None:
    recipe = "recipe:\n  preset: vmamba_tiny\n"
    both = START.replace("[vim_micro]", "[{name: vim_micro, drop_path: 0.1}]") + recipe
    assert mistakes(both) == [
        "grid.yaml:5: recipe.drop_path: vim_micro(drop_path=0.1) has a drop_path of its own (line 2); the preset gives one too: write drop_path: null"
    ]
    assert "has no stochastic depth; write drop_path: null" in mistakes(START.replace("vim_micro", "timm/vgg11") + recipe)[0]
    assert read(both + "  drop_path: null\n").cells[0].recipe.drop_path is None


def test_choices_that_exclude_keeps_apart_are_not_held_against_each_other(folder: Path) -> None:
    models = "name: t\nmodels: [vim_micro, {name: vim_micro, drop_path: 0.1, label: own}]\npruning: [dense]\nseeds: [0]\n"
    recipes = "recipe: [{drop_path: 0.2}, {lr: 0.1}]\n"
    apart = "exclude: [{model: own, recipe: {drop_path: 0.2}}]\n"
    assert len(mistakes(models + recipes)) == 1 and len(read(models + recipes + apart).cells) == 3
    tuned = models + recipes + apart + "tune: {weight_decay: [0.01, 0.1]}\n"
    assert len(read(tuned).cells) == 3 and mistakes(tuned.replace(apart, ""))
    sets = START + "data: [{source: digits}, {source: synthetic, samples: 100}]\nrecipe: {batch_size: [64, 128]}\n"
    assert len(mistakes(sets)) == 1 and len(read(sets + "exclude: [{data: {source: synthetic}, recipe: {batch_size: 128}}]\n").cells) == 3
