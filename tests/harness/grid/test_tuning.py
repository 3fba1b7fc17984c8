"""`tune:` in a grid: what it stands for, and its mistakes."""

from pathlib import Path

import pytest

from harness.grid.read import read_grid
from harness.plan.stages import make_graph
from tests.support.grids import START, mistakes, read

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_cell_has_the_same_trials() -> None:
    axes = "name: t\nmodels: [vim_micro, vim_tiny]\npruning: [dense, {method: random, sparsity: 0.5}]\nseeds: 2\n"
    grid = read(f"{axes}tune: {{lr: [1e-3, 2e-3, 4e-3], budget: 2}}\n")
    assert len(grid.cells) == 8 and len({cell.tune.trials[0]["lr"] for cell in grid.cells if cell.tune}) == 1
    graph = make_graph(grid.cells)
    assert {tuple(trial.values["lr"] for trial in graph.trials[cell.id]) for cell in grid.cells} == {(1e-3, 4e-3)}


def test_without_a_budget_all_points_are_tried() -> None:
    tune = read(f"{START}tune: {{clip_grad: [null, 1], optimizer: [adamw, lamb], betas: [[0.9, 0.999], [0.9, 0.95]]}}\n").cells[0].tune
    assert tune is not None and tune.budget == tune.points == 8
    assert tune.space == {"optimizer": ("adamw", "lamb"), "betas": ((0.9, 0.999), (0.9, 0.95)), "clip_grad": (None, 1.0)}


def test_nothing_after_the_key_means_no_tuning() -> None:
    assert read(f"{START}tune:\n").cells[0].id == read(START).cells[0].id


@pytest.mark.parametrize(
    ("tune", "message"),
    [
        ("[lr]", "tune: expected a mapping of recipe keys to lists of values, such as tune: {finetune_lr:"),
        ("{budget: 3}", "tune: it names no key of the recipe; give lists of values"),
        ("{finetune_l: [1, 2]}", "tune.finetune_l: unknown key; did you mean 'finetune_lr'? valid: optimizer, lr, finetune_lr,"),
        ("{epochs: [1, 2]}", "tune.epochs: it cannot be tuned: every cell gets the same epochs"),
        ("{lr: 1e-3}", "tune.lr: expected a list of values to try, got text '1e-3'"),
        ("{lr: [1e-3]}", "tune.lr: a key is tuned over two values or more; write a single value in the recipe"),
        ("{lr: [1, 1.0]}", "tune.lr: 1.0 is given twice"),
        ("{lr: []}", "tune.lr: a key is tuned over two values or more"),
        ("{lr: [fast, 1]}", "tune.lr[0]: expected a number, got text 'fast'"),
        ("{lr: [0, 1]}", "tune.lr: must be above 0, got 0.0 (with lr 0)"),
        ("{lr: [1e-6, 1], min_lr: [1e-5, 1e-7]}", "tune.min_lr: 1e-05 is above lr, 1e-06 (with lr 1e-06, min_lr 1e-05)"),
        ("{mesa: [0, 1]}", "tune.mesa: it holds the network to its average: give ema, or leave mesa out (with mesa 1)"),
        ("{lr: [1, 2], budget: 3}", "tune.budget: 3 trials, and the space has 2 points; give at most 2, or more values"),
        ("{lr: [1, 2], budget: 1}", "tune.budget: expected a whole number from 2 to 1000, got 1"),
        ("{lr: [1, 2], budget: many}", "tune.budget: expected a whole number from 2 to 1000, got text 'many'"),
        ("{lr: [1, 2], seed: -1}", "tune.seed: expected a whole number from 0 to"),
        (
            f"{{lr: {list(range(1, 102))}, weight_decay: {list(range(100))}}}",
            "tune: its lists stand for 10100 points, and a space may have at most 10000",
        ),
        (f"{{lr: {list(range(1, 102))}, weight_decay: {list(range(10))}}}", "tune.budget: missing: the space has 1010 points"),
    ],
)
def test_mistakes_are_named_with_their_line(tune: str, message: str) -> None:
    assert mistakes(f"{START}tune: {tune}\n")[0].startswith(f"grid.yaml:5: {message}")


def test_a_recipe_gives_no_tuned_key_but_a_preset_may() -> None:
    tune = "tune: {lr: [1e-3, 2e-3]}\n"
    assert mistakes(f"{START}recipe: {{lr: 1e-3}}\n{tune}") == ["grid.yaml:5: recipe.lr: it is tuned (line 6); leave it out here"]
    models = START.replace("vim_micro", "vim_tiny")
    assert read(f"{models}recipe: {{preset: vim_tiny, batch_size: 64}}\n{tune}").cells[0].recipe.lr == 1e-3


@pytest.mark.parametrize(
    ("recipe", "tune", "message"),
    [
        ("finetune_epochs: 0", "finetune_lr: [1e-3, 2e-3]", "tune.finetune_lr: the recipe has no epoch of fine-tuning, so it changes no network"),
        ("epochs: 0, finetune_epochs: 0", "weight_decay: [0, 1]", "tune: the recipe has no epoch, so no trial changes a network"),
    ],
)
def test_a_key_that_changes_no_network_is_refused(recipe: str, tune: str, message: str) -> None:
    said = mistakes(f"{START}recipe: {{{recipe}}}\ntune: {{{tune}}}\n")
    assert any(line.startswith(f"grid.yaml:6: {message}") for line in said)


def test_trials_are_held_against_the_models() -> None:
    said = mistakes("name: t\nmodels: [{name: vim_micro, drop_path: 0.1}]\npruning: [dense]\nseeds: [0]\ntune: {drop_path: [0.1, 0.2]}\n")
    assert "give it in one of the two" in said[0]


def test_the_grid_on_the_page_is_the_file_and_can_be_launched() -> None:
    root = Path(__file__).resolve().parents[3]
    file = root / "benchmarks" / "grids" / "tuned.yaml"
    example = file.read_text().partition("\n")[2]  # without its comment
    assert f"```yaml\n{example}```" in (root / "docs" / "tuning.md").read_text()
    graph = make_graph(read_grid(file).cells)
    assert {len(trials) for trials in graph.trials.values()} == {4}
