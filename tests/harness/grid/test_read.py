"""From grid.yaml to cells: what expands, what is refused, and how it is said."""

import subprocess
import sys
from pathlib import Path

import pytest

from harness.grid.read import Grid, read_grid
from harness.grid.yaml_source import GridError
from jobs.experiment.cell import Cell
from jobs.experiment.specs import ClusterSpec
from models.pruning.base import Budget, Stage
from models.pruning.dense import Dense
from models.pruning.registry import METHODS

START = "name: t\nmodels: [vim_micro]\npruning: [dense]\nseeds: [0]\n"  # lines 1 to 4


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(text: str) -> Grid:
    """The grid written in `text`, in a file called grid.yaml of the current folder."""
    Path("grid.yaml").write_text(text)
    return read_grid(Path("grid.yaml"))


def mistakes(text: str) -> list[str]:
    """The lines of the error that `text` gives."""
    with pytest.raises(GridError) as caught:
        read(text)
    return str(caught.value).splitlines()


def labels(grid: Grid) -> list[tuple[str, str, int]]:
    return [(cell.model.label, cell.pruning, cell.seed) for cell in grid.cells]


def prunings(entry: str) -> list[str]:
    """Labels of the methods that an entry of `pruning:` expands to."""
    return [cell.pruning for cell in read(f"name: t\nmodels: [vim_micro]\nseeds: [0]\npruning: {entry}\n").cells]


def options(entry: str) -> list[dict[str, object]]:
    """Options of the models that an entry of `models:` expands to."""
    return [dict(cell.model.options) for cell in read(f"name: t\npruning: [dense]\nseeds: [0]\nmodels: {entry}\n").cells]


# What expands


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


def test_data_and_recipes_multiply_too(folder: Path) -> None:
    grid = read(START + "data: {source: synthetic, classes: [3, 4]}\nrecipe: [{lr: [0.1, 0.2]}, {lr: 0.3, epochs: 20}]\n")
    found = [(cell.data.classes, cell.recipe.lr, cell.recipe.epochs) for cell in grid.cells]
    assert found == [(classes, *recipe) for classes in (3, 4) for recipe in ((0.1, 12), (0.2, 12), (0.3, 20))]


def test_a_list_in_an_entry_multiplies_within_the_entry_alone(folder: Path) -> None:
    found = prunings("[{method: magnitude, sparsity: [0.5, 0.9], scope: [global, layer]}, {method: dynamic, sparsity: 0.5}]")
    assert found == ["magnitude(0.5)", "magnitude(0.5, scope=layer)", "magnitude(0.9)", "magnitude(0.9, scope=layer)", "dynamic(0.5)"]


def test_a_list_is_the_value_of_a_field_that_holds_a_list(folder: Path) -> None:
    assert prunings("[{method: magnitude, sparsity: 0.5, groups: [in_proj, head]}]") == ["magnitude(0.5, groups=in_proj+head)"]


def test_a_list_of_lists_expands_a_field_that_holds_a_list(folder: Path) -> None:
    found = prunings("[{method: magnitude, sparsity: 0.5, groups: [[in_proj, head], [mlp]]}]")
    assert found == ["magnitude(0.5, groups=in_proj+head)", "magnitude(0.5, groups=mlp)"]


def test_lists_in_nested_options_expand(folder: Path) -> None:
    assert options("[{name: vim_micro, se: {ratio: [2, 8]}}]") == [{"se": {"ratio": 2}}, {"se": {"ratio": 8}}]


@pytest.mark.parametrize("given", ["true", "{}", "{ratio: 4}"])
def test_true_or_nothing_in_it_is_a_nested_option_at_its_defaults(folder: Path, given: str) -> None:
    assert options(f"[{{name: vim_micro, se: {given}}}]") == [{"se": {}}]


def test_a_nested_option_may_be_with_and_without(folder: Path) -> None:
    assert options("[{name: vim_micro, se: [false, true, {ratio: 2}]}]") == [{}, {"se": {}}, {"se": {"ratio": 2}}]


def test_names_may_be_a_list(folder: Path) -> None:
    grid = read("name: t\npruning: [dense]\nseeds: 1\nmodels: [{name: [vim_micro, vim_tiny], depth: [2, 3]}]\n")
    assert [cell.model.label for cell in grid.cells] == ["vim_micro(depth=2)", "vim_micro(depth=3)", "vim_tiny(depth=2)", "vim_tiny(depth=3)"]


def test_zip_pairs_lists(folder: Path) -> None:
    found = options("[{name: vim_micro, zip: {depth: [2, 3], dim: [16, 32]}, se: [false, true]}]")
    assert found == [{"depth": 2, "dim": 16}, {"depth": 2, "dim": 16, "se": {}}, {"depth": 3, "dim": 32}, {"depth": 3, "dim": 32, "se": {}}]


def test_several_zips_multiply_with_each_other(folder: Path) -> None:
    assert len(options("[{name: vim_micro, zip: [{depth: [2, 3], dim: [16, 32]}, {expand: [1, 3], d_state: [2, 4]}]}]")) == 4


def test_zip_pairs_fields_of_the_recipe(folder: Path) -> None:
    grid = read(START + "recipe: {zip: {lr: [1e-3, 2e-3], batch_size: [64, 128]}}\n")
    assert [(cell.recipe.lr, cell.recipe.batch_size) for cell in grid.cells] == [(1e-3, 64), (2e-3, 128)]


def test_zip_takes_lists_for_a_field_that_holds_lists(folder: Path) -> None:
    found = prunings("[{method: magnitude, zip: {sparsity: [0.5, 0.6], groups: [[mlp], [head, se]]}}]")
    assert found == ["magnitude(0.5, groups=mlp)", "magnitude(0.6, groups=head+se)"]


def test_dense_is_there_once_however_often_it_is_listed(folder: Path) -> None:
    assert prunings("[dense, {method: dense}, {method: [dense, dense]}]") == ["dense"]


def test_anchors_and_merge_keys_work(folder: Path) -> None:
    grid = read(
        "x-base: &base {lr: 0.1, epochs: 3}\nname: t\nmodels: &models [vim_micro]\npruning: [dense]\nseeds: [0]\n"
        "recipe: [{<<: *base}, {<<: *base, epochs: 4}, {<<: [{lr: 0.5}, *base]}]\n"
    )
    assert [(cell.recipe.lr, cell.recipe.epochs) for cell in grid.cells] == [(0.1, 3), (0.1, 4), (0.5, 3)]


def test_a_number_of_seeds_counts_from_zero(folder: Path) -> None:
    assert [cell.seed for cell in read(START.replace("[0]", "3")).cells] == [0, 1, 2]


@pytest.mark.parametrize("written, number", [("1e-3", 1e-3), ("2E+1", 20.0), ("3", 3.0), (".5", 0.5), ("1_000", 1000.0)])
def test_numbers_may_be_written_in_every_usual_way(folder: Path, written: str, number: float) -> None:
    cell = read(START + f"recipe: {{lr: {written}}}\n").cells[0]
    assert cell.recipe.lr == number and type(cell.recipe.lr) is float


def test_labels_may_be_given(folder: Path) -> None:
    pruning = "[{method: magnitude, sparsity: 0.5, label: half}]"
    grid = read(f"name: t\nmodels: [{{name: vim_micro, depth: 2, label: shallow}}]\npruning: {pruning}\nseeds: [0]\n")
    assert labels(grid) == [("shallow", "half", 0)]
    assert Cell.from_json(grid.cells[0].to_json()) == grid.cells[0]


def test_labels_and_cluster_enter_no_id(folder: Path) -> None:
    plain = read(START).cells[0]
    labelled = read(START.replace("[vim_micro]", "[{name: vim_micro, label: mine}]") + "cluster: {kind: slurm, nodes: 4, partition: gpu}\n").cells[0]
    assert labelled.id == plain.id


def test_writing_a_default_down_keeps_the_id(folder: Path) -> None:
    written = "data: {source: digits, flip: false}\nrecipe: {epochs: 12, weight_decay: 5e-2, ema: null, betas: [0.9, 0.999]}\n"
    assert read(START + written).cells[0].id == read(START).cells[0].id


def test_the_text_is_kept_for_freezing(folder: Path) -> None:
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


# Exclusion

TWELVE = (
    "name: t\nmodels: [vim_micro, {name: vim_micro, se: {ratio: 2}}]\n"
    "pruning: [dense, {method: magnitude, sparsity: [0.5, 0.9]}]\nseeds: [0, 1]\nexclude: "
)


@pytest.mark.parametrize(
    "pattern, left",
    [
        ("{pruning: dense}", 8),
        ("{pruning: magnitude}", 4),
        ("{pruning: magnitude(0.9)}", 8),
        ("{pruning: {sparsity: 0.9}}", 8),
        ("{pruning: {method: magnitude, sparsity: [0.5, 0.9]}}", 4),
        ("{pruning: {label: magnitude(0.9)}}", 8),
        ("{model: vim_micro+se(ratio=2)}", 6),
        ("{model: {se: true}}", 6),
        ("{model: {se: {ratio: 2}}}", 6),
        ("{model: {se: null}}", 6),
        ("{model: {label: vim_micro}}", 6),
        ("{model: {name: vim_micro, se: false}, seed: 1}", 9),
        ("{seed: 1}", 6),
        ("{seed: [0, 1], pruning: dense}", 8),
        ("{model: vim_micro+se(ratio=2), pruning: {sparsity: 9e-1}, seed: 0}", 11),
        ("{data: {source: digits}, recipe: {epochs: 12.0}, seed: 0}", 6),
        ("{recipe: {betas: [0.9, 0.999]}, seed: 0}", 6),
    ],
)
def test_exclude_drops_what_matches_in_every_part(folder: Path, pattern: str, left: int) -> None:
    assert len(read(TWELVE + f"[{pattern}]\n").cells) == left


def test_patterns_of_exclude_add_up(folder: Path) -> None:
    assert len(read(TWELVE + "[{pruning: dense}, {seed: 1}]\n").cells) == 4


@pytest.mark.parametrize(
    "pattern, said",
    [
        ("{pruning: {sparsity: 0.8}}", "exclude[0].pruning: matches no pruning of this grid; it has dense, magnitude(0.5), magnitude(0.9)"),
        ("{pruning: {sparsty: 0.9}}", "exclude[0].pruning.sparsty: unknown key; did you mean 'sparsity'?"),
        ("{pruning: magnitud}", "exclude[0].pruning: 'magnitud' matches no pruning of this grid; did you mean 'magnitude'?"),
        ("{model: vim_tiny}", "exclude[0].model: 'vim_tiny' matches no model of this grid;"),
        ("{seed: 7}", "exclude[0].seed: '7' matches no seed of this grid; valid: 0, 1"),
        ("{modl: vim_micro}", "exclude[0].modl: unknown key; did you mean 'model'? valid: model, pruning, data, recipe, seed"),
        ("{recipe: {epochs: 13}}", "exclude[0].recipe: matches no recipe of this grid"),
        ("{data: digits}", "exclude[0].data: 'digits' matches no data of this grid; expected a mapping of fields"),
        ("dense", "exclude[0]: expected a mapping of model, pruning, data, recipe, seed"),
    ],
)
def test_a_pattern_that_matches_nothing_is_a_mistake(folder: Path, pattern: str, said: str) -> None:
    (found,) = mistakes(TWELVE + f"[{pattern}]\n")
    assert found.startswith(f"grid.yaml:5: {said}")


def test_a_pattern_that_leaves_no_cell_is_a_mistake(folder: Path) -> None:
    assert mistakes(TWELVE + "[{model: vim_micro}]\n") == ["grid.yaml:5: exclude: leaves no cell"]


def test_a_pattern_is_not_called_fruitless_because_of_another_mistake(folder: Path) -> None:
    bad = START.replace("[dense]", "[dense, {method: magnitude, sparsity: 1.5}]")
    found = mistakes(bad + "exclude: [{pruning: magnitude}]\n")
    assert found == ["grid.yaml:3: pruning[1].sparsity: sparsity must be in [0, 1), got 1.5"]


# Mistakes: what is added to a good grid, and the one line that it gives

MISTAKES = {
    "unknown key": ("recpe: {epochs: 3}", "5: recpe: unknown key; did you mean 'recipe'? valid: name, data, recipe, models, pruning, "),
    "unknown field": ("recipe:\n  lr: 0.1\n  epocs: 3", "7: recipe.epocs: unknown key; did you mean 'epochs'? valid: epochs, finetune_epochs,"),
    "key twice": ("recipe:\n  lr: 0.1\n  epochs: 3\n  lr: 0.2", "8: recipe.lr: given twice; first in line 6"),
    "top key twice": ("seeds: [1]", "5: seeds: given twice; first in line 4"),
    "merge key twice": ("x-a: &a {lr: 1}\nrecipe:\n  <<: *a\n  <<: *a", "8: recipe.<<: given twice; write <<: [*a, *b]"),
    "merge of a list": ("recipe: {<<: 3}", "5: recipe.<<: expected a mapping or a list of mappings"),
    "text for a number": ("recipe: {lr: fast}", "5: recipe.lr: expected a number, got text 'fast'"),
    "true for a number": ("recipe: {lr: true}", "5: recipe.lr: expected a number, got true"),
    "true for a whole number": ("recipe: {epochs: true}", "5: recipe.epochs: expected a whole number, got true"),
    "a half epoch": ("recipe: {epochs: 1.5}", "5: recipe.epochs: expected a whole number, got 1.5"),
    "number beyond floats": ("recipe: {lr: 1e999}", "5: recipe.lr: expected a number, got text '1e999'"),
    "whole number beyond floats": (f"recipe: {{lr: {10**400}}}", "5: recipe.lr: expected a number, got 1000"),
    "infinity": ("recipe: {lr: .inf}", "5: recipe.lr: expected a number, got inf"),
    "number for true": ("data: {flip: 1}", "5: data.flip: expected true or false, got 1"),
    "nothing for a number": ("recipe: {epochs: }", "5: recipe.epochs: expected a whole number, got nothing"),
    "text for a number or null": ("recipe: {ema: none}", "5: recipe.ema: expected a number or null, got text 'none'"),
    "unknown value": ("recipe: {optimizer: adam}", "5: recipe.optimizer: unknown value 'adam'; did you mean 'adamw'? valid: adamw, lamb, sgd"),
    "unknown number": ("recipe: {zero_stage: 4}", "5: recipe.zero_stage: expected one of 0, 1, 2, 3, got 4"),
    "number for text": ("data: {source: imagefolder, path: 3}", "5: data.path: expected text or null, got 3"),
    "mapping for a number": ("recipe: {lr: {a: 1}}", "5: recipe.lr: expected a number, got a mapping"),
    "one of a bad list": ("recipe: {lr: [0.1, x]}", "5: recipe.lr[1]: expected a number, got text 'x'"),
    "empty list": ("recipe: {lr: []}", "5: recipe.lr: an empty list leaves no choice"),
    "short list": ("recipe: {betas: [0.9]}", "5: recipe.betas: expected a list of 2 numbers, got 1 of them"),
    "number for a list": ("recipe: {betas: 0.9}", "5: recipe.betas: expected a list of 2 numbers, got 0.9"),
    "recipe is no mapping": ("recipe: 3", "5: recipe: expected a mapping, got 3"),
    "same recipe twice": ("recipe: [{lr: 0.1}, {lr: 1e-1}]", "5: recipe[1]: this is in the grid already, by line 5"),
    "negative epochs": ("recipe: {epochs: -1}", "5: recipe.epochs: must be 0 or more, got -1"),
    "no epoch": ("recipe: {epochs: 0, finetune_epochs: 0}", "5: recipe.epochs: epochs and finetune_epochs are both 0: nothing is trained"),
    "long warm-up": ("recipe: {epochs: 3, warmup_epochs: 4}", "5: recipe.warmup_epochs: the warm-up, 4 epochs, is longer than the training, 3"),
    "high min_lr": ("recipe: {min_lr: 0.1, lr: 0.01}", "5: recipe.min_lr: 0.1 is above lr, 0.01"),
    "lamb in shards": (
        "recipe: {optimizer: lamb, zero_stage: 2}",
        "5: recipe.zero_stage: lamb scales each layer's update by the whole layer's norm, and zero_stage 2 cuts layers across ranks; only 0 is valid",
    ),
    "zero lr": ("recipe: {lr: 0}", "5: recipe.lr: must be above 0, got 0.0"),
    "betas": ("recipe: {betas: [0.9, 1.0]}", "5: recipe.betas: must be 0 or more and below 1 each, got [0.9, 1.0]"),
    "ema": ("recipe: {ema: 1}", "5: recipe.ema: must be above 0 and below 1, got 1.0"),
    "batch over ranks": (
        "recipe: {batch_size: 63}\ncluster: {tasks_per_node: 2}",
        "5: recipe.batch_size: 63 cannot be divided by 2 ranks; a multiple of 2 can",
    ),
    "batch above the digits": (
        "recipe:\n  epochs: 2\n  batch_size: 2048",
        "7: recipe.batch_size: 2048 is more than the 1294 training images of digits (val_fraction 0.1 is kept apart); at most 1294",
    ),
    "batch above a synthetic set": (
        "data: {source: synthetic, samples: 100, val_fraction: 0.25}\nrecipe: {batch_size: 76}",
        "6: recipe.batch_size: 76 is more than the 75 training images of synthetic (val_fraction 0.25 is kept apart); at most 75",
    ),
    "batch over micro-batches": (
        "recipe:\n  micro_batch_size: 12\n  batch_size: 64\ncluster: {tasks_per_node: 2}",
        "7: recipe.batch_size: 64 cannot be divided by 2 ranks x micro_batch_size 12; a multiple of 24 can",
    ),
    "val_fraction": ("data: {val_fraction: 1}", "5: data.val_fraction: must be above 0 and below 1, got 1.0"),
    "crop_scale": ("data: {crop_scale: [0.9, 0.8]}", "5: data.crop_scale: must be [low, high] with 0 < low <= high <= 1, got [0.9, 0.8]"),
    "no path": ("data: {source: cifar10}", "5: data.path: source cifar10 needs it"),
    "no test_path": ("data: {source: beton, path: a.beton}", "5: data.test_path: source beton needs it"),
    "useless path": ("data: {source: digits, path: x}", "5: data.path: source digits takes none"),
    "large shift": ("data: {augment: shift, shift_px: 32}", "5: data.shift_px: must be below the image's size, 32 pixels, got 32"),
    "unequal zip": ("recipe: {zip: {lr: [1, 2], epochs: [1, 2, 3]}}", "5: recipe.zip: lists of unequal length: lr has 2, epochs has 3"),
    "zip of a number": ("recipe: {zip: {lr: 1}}", "5: recipe.zip.lr: expected a list, got 1"),
    "zip of an unknown field": ("recipe: {zip: {lrr: [1]}}", "5: recipe.zip.lrr: unknown key; did you mean 'lr'?"),
    "zip of nothing": ("recipe: {zip: {}}", "5: recipe.zip: expected lists of equal length by key, such as zip: {a: [1, 2], b: [3, 4]}"),
    "zip beside the field": ("recipe: {lr: 1, zip: {lr: [1], epochs: [2]}}", "5: recipe.zip.lr: stands outside zip too; keep one of them"),
    "zip with a bad value": ("recipe: {zip: {lr: [1, x], epochs: [2, 3]}}", "5: recipe.zip.lr[1]: expected a number, got text 'x'"),
    "python tag": ("recipe: {lr: !!python/object:os.system 3}", "5: recipe.lr: the tag tag:yaml.org,2002:python/object:os.system is not read here"),
    "anchor in itself": ("recipe: &a [*a]", "5: recipe[0]: the anchor contains itself"),
    "exclude is no list": ("exclude: {seed: 0}", "5: exclude: expected a list of patterns, such as [{model: vim_micro, seed: 0}]"),
    "unknown cluster": ("cluster: slrum", "5: cluster: no profile slrum; valid: local, debug, the path of a profile such as "),
    "cluster is a number": ("cluster: 3", "5: cluster: expected local, debug, the path of a profile, or a mapping"),
    "unknown cluster key": ("cluster: {kind: slurm, partion: gpu}", "5: cluster.partion: unknown key; did you mean 'partition'?"),
    "unknown SLURM name": ("cluster: {kind: slurm, slurm: {slurm_qoss: x}}", "5: cluster.slurm_qoss: unknown key; did you mean"),
    "cluster type": ("cluster: {nodes: two}", "5: cluster.nodes: expected a whole number, got text 'two'"),
    "cluster value": ("cluster: {stages_per_job: 0}", "5: cluster.stages_per_job: must be 1 or more, got 0"),
    "name and prefix": ("cluster: {kind: slurm, qos: a, slurm_qos: b}", "5: cluster.slurm_qos: given twice, as qos too"),
    "beside and under slurm": ("cluster: {kind: slurm, qos: a, slurm: {qos: b}}", "5: cluster.slurm.qos: given twice"),
    "slurm is no mapping": ("cluster: {kind: slurm, slurm: [a]}", "5: cluster.slurm: expected a mapping of submitit's SLURM parameters"),
    "SLURM names elsewhere": ("cluster: {partition: gpu}", "5: cluster.kind: partition need kind: slurm; this is local"),
    "debug with ranks": (
        "cluster: {kind: debug, tasks_per_node: 2}",
        "5: cluster.tasks_per_node: debug runs in the launcher's own process, with one rank, not 2; kind: local takes several",
    ),
    "local with nodes": ("cluster: {nodes: 2}", "5: cluster.nodes: local has one node, not 2; kind: slurm takes several"),
}


@pytest.mark.parametrize("added, said", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_with_its_line_and_key(folder: Path, added: str, said: str) -> None:
    (found,) = mistakes(START + added + "\n")
    assert found.startswith(f"grid.yaml:{said}")


def test_a_batch_is_not_held_against_images_that_nobody_has_counted(folder: Path) -> None:
    assert read(START + "data: {source: beton, path: a, test_path: b}\nrecipe: {batch_size: 100000}\n").cells


def test_a_step_to_rewind_to_that_the_training_never_makes_is_refused(folder: Path) -> None:
    rewinding = "\n- dense\n- method: iterative_magnitude\n  rounds: 1\n  rewind_step: %d"
    text = START.replace("[dense]", rewinding) + "recipe: {epochs: 2, batch_size: 64}\n"
    assert len(read(text % 40).cells) == 2
    (found,) = mistakes(text % 41)
    assert found == "grid.yaml:7: pruning[1]: rewinds to step 41, and train ends with step 40 (with the recipe of line 9 and digits)"


ENTRIES = {
    "unknown model": ("models: [vim_mcro]", "1: models[0]: unknown model 'vim_mcro'; did you mean 'vim_micro'? valid: "),
    "unknown name": ("models:\n- vim_micro\n- name: vim_smal", "3: models[1].name: unknown model 'vim_smal'; did you mean 'vim_small'? valid: "),
    "model without name": ("models: [{depth: 3}]", "1: models[0]: needs name:"),
    "model is a number": ("models: [3]", "1: models[0]: expected text, got 3"),
    "unknown option": ("models:\n- name: vim_micro\n  deph: 3", "3: models[0].deph: unknown key; did you mean 'depth'? valid: name, label, "),
    "unknown nested option": (
        "models: [{name: vim_micro, se: {ration: 3}}]",
        "1: models[0].se.ration: unknown key; did you mean 'ratio'? valid: ratio",
    ),
    "option of a wrong type": ("models: [{name: vim_micro, depth: deep}]", "1: models[0].depth: expected a whole number, got text 'deep'"),
    "option out of range": ("models:\n- name: vim_micro\n  se:\n    ratio: 0", "4: models[0].se.ratio: Input should be greater than or equal to 1"),
    "zipped option out of range": ("models:\n- name: vim_micro\n  zip:\n    dim: [8]\n    depth: [0]", "5: models[0].depth: Input should be greater"),
    "variant for a nested option": (
        "models: [{name: vim_micro, zip: {se: [{ratio: [1, 2]}], depth: [3]}}]",
        "1: models[0].zip.se[0]: stands for 2 choices; in zip it must be one",
    ),
    "model twice": ("models:\n- vim_micro\n- {name: vim_micro, depth: 4}", "3: models[1]: vim_micro is in the grid already, by line 2"),
    "label for two": ("models: [{name: vim_micro, depth: [2, 3], label: x}]", "1: models[0].label: one label for 2 choices;"),
    "label taken": ("models:\n- vim_micro\n- {name: vim_tiny, label: vim_micro}", "3: models[1]: the label 'vim_micro' is taken, by line 2"),
    "label is a number": ("models: [{name: vim_micro, label: 3}]", "1: models[0].label: expected text"),
    "no models": ("models: []", "1: models: missing: the grid needs at least one entry"),
    "unknown method": ("pruning: [dense, magnitud]", "1: pruning[1]: unknown method 'magnitud'; did you mean 'magnitude'? valid: dense, "),
    "method without method": ("pruning: [{sparsity: 0.5}]", "1: pruning[0]: needs method:"),
    "unknown knob": ("pruning: [{method: magnitude, sparsity: 0.5, scop: layer}]", "1: pruning[0].scop: unknown key; did you mean 'scope'?"),
    "knob that is missing": ("pruning: [magnitude]", "1: pruning[0]: magnitude needs sparsity"),
    "unknown scope": (
        "pruning: [{method: magnitude, sparsity: 0.5, scope: local}]",
        "1: pruning[0].scope: unknown value 'local'; did you mean 'global'?",
    ),
    "sparsity of 1": ("pruning:\n- method: magnitude\n  sparsity: [0.5, 1]", "3: pruning[0].sparsity: sparsity must be in [0, 1), got 1"),
    "sparsity is text": ("pruning: [{method: magnitude, sparsity: high}]", "1: pruning[0].sparsity: expected a number, got text 'high'"),
    "knob for dense": ("pruning: [{method: dense, sparsity: 0.5}]", "1: pruning[0].sparsity: unknown key; valid: method, label"),
    "sparsity twice": ("pruning: [{method: magnitude, sparsity: [0.5, 0.5]}]", "1: pruning[0]: magnitude(0.5) is in the grid already, by line 1"),
    "negative seed": ("seeds: [0, -1]", "1: seeds[1]: expected a whole number from 0 to 4294967295"),
    "large seed": ("seeds: [4294967296]", "1: seeds[0]: expected a whole number from 0 to 4294967295"),
    "seed is text": ("seeds: [a]", "1: seeds[0]: expected a whole number from 0 to 4294967295"),
    "seed is true": ("seeds: [true]", "1: seeds[0]: expected a whole number from 0 to 4294967295"),
    "seed twice": ("seeds:\n- 3\n- 3", "3: seeds[1]: seed 3 is given twice"),
    "no seed": ("seeds: []", "1: seeds: missing: expected a list such as [0, 1, 2], or a number n, at most 10000, for the seeds 0 to n - 1"),
    "zero seeds": ("seeds: 0", "1: seeds: expected a list such as [0, 1, 2], or a number n, at most 10000, for the seeds 0 to n - 1"),
    "forgotten brackets": ("seeds: 20260101", "1: seeds: expected a list such as [0, 1, 2], or a number n, at most 10000,"),
    "bad name": ("name: a/b", "1: name: must be letters, digits, '.', '_' and '-', got 'a/b'"),
    "name is a number": ("name: 3", "1: name: must be letters, digits, '.', '_' and '-', got 3"),
}


@pytest.mark.parametrize("lines, said", ENTRIES.values(), ids=ENTRIES)
def test_a_bad_entry_is_named_with_its_line_and_key(folder: Path, lines: str, said: str) -> None:
    rest = [line for line in START.splitlines() if line.split(":")[0] != lines.split(":")[0]]
    (found,) = mistakes("\n".join([lines, *rest]) + "\n")
    assert found.startswith(f"grid.yaml:{said}")


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


def test_a_mistake_in_an_aliased_value_is_reported_once_a_use(folder: Path) -> None:
    found = mistakes(START + "x-a: &a {lr: no number}\nrecipe: [*a, {<<: *a, epochs: 3}]\n")
    assert found == [f"grid.yaml:5: recipe[{index}].lr: expected a number, got text 'no number'" for index in (0, 1)]


def test_a_method_that_cannot_run_on_the_epochs_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Long(Dense):
        """A control that wants ten epochs."""

        def stages(self, budget: Budget) -> tuple[Stage, ...]:
            if budget.epochs < 10:
                raise ValueError(f"dense wants 10 epochs, got {budget.epochs}")
            return super().stages(budget)

    monkeypatch.setitem(METHODS, "dense", Long)
    assert mistakes(START + "recipe: {epochs: [9, 10]}\n") == ["grid.yaml:3: pruning[0]: dense wants 10 epochs, got 9 (with the recipe of line 5)"]


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "grid.yaml:1: the file is empty"),
        ("# nothing\n", "grid.yaml:1: the file is empty"),
        ("- vim_micro\n", "grid.yaml:1: expected `key: value` lines at the top of the file"),
        ("quickstart\n", "grid.yaml:1: expected `key: value` lines at the top of the file"),
        ("name: t\nrecipe:\n\tlr: 1\n", "grid.yaml:3: not YAML: found character that cannot start any token (a tab; YAML indents with spaces)"),
        ("name: t\nmodels: [a\nseeds: 3\n", "grid.yaml:3: not YAML: "),
        ("name: t\nrecipe: *base\n", "grid.yaml:2: not YAML: found undefined alias"),
        ("name: t\n---\nname: u\n", "grid.yaml:2: not YAML: "),
        ("name: t\n? [a, b]\n: 3\n", "grid.yaml:2: a key must be a name"),
    ],
)
def test_a_file_that_is_no_grid_is_refused(folder: Path, text: str, said: str) -> None:
    assert mistakes(text)[0].startswith(said)


def test_a_file_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(GridError, match="missing.yaml:1: no such file"):
        read_grid(Path("missing.yaml"))


def test_a_folder_or_bytes_in_place_of_a_file_are_refused(folder: Path) -> None:
    Path("bytes.yaml").write_bytes(b"\xff\xfe\x00")
    for path in (folder, Path("bytes.yaml")):
        with pytest.raises(GridError, match="cannot be read"):
            read_grid(path)


# Clusters


def test_a_cluster_is_local_unless_said(folder: Path) -> None:
    assert read(START).cluster == ClusterSpec()
    assert read(START + "cluster: debug\n").cluster == ClusterSpec(kind="debug")


def test_slurm_names_come_with_or_without_their_prefix(folder: Path) -> None:
    flat = "kind: slurm, partition: gpu, slurm_qos: high, slurm_mem_gb: 8, slurm_array_parallelism: 4, setup: [module load x]"
    assert read(START + f"cluster: {{{flat}, slurm: {{gres: 'gpu:2', slurm_time: 12:30:00}}}}\n").cluster == ClusterSpec(
        kind="slurm",
        mem_gb=8.0,
        max_parallel=4,
        setup=("module load x",),
        slurm={"partition": "gpu", "qos": "high", "gres": "gpu:2", "time": "12:30:00"},
    )


def test_a_profile_is_found_beside_the_grid_and_then_in_the_current_folder(folder: Path) -> None:
    (folder / "grids").mkdir()
    (folder / "grids" / "grid.yaml").write_text(START + "cluster: gpu.yaml\n")
    (folder / "gpu.yaml").write_text("kind: slurm\nnodes: 2\n")
    assert read_grid(Path("grids/grid.yaml")).cluster.nodes == 2
    (folder / "grids" / "gpu.yaml").write_text("kind: slurm\nnodes: 4\n")
    assert read_grid(Path("grids/grid.yaml")).cluster.nodes == 4


def test_mistakes_of_a_profile_are_reported_in_its_own_file(folder: Path) -> None:
    Path("gpu.yaml").write_text("kind: slurm\nnodes: 0\npartion: gpu\n")
    assert [line.split(";")[0] for line in mistakes(START + "cluster: gpu.yaml\nrecpe: 3\n")] == [
        "gpu.yaml:2: nodes: must be 1 or more, got 0",
        "gpu.yaml:3: partion: unknown key",
        "grid.yaml:6: recpe: unknown key",
    ]


def test_a_profile_that_is_not_yaml_is_refused_in_its_own_file(folder: Path) -> None:
    Path("gpu.yaml").write_text("")
    assert mistakes(START + "cluster: gpu.yaml\n") == ["gpu.yaml:1: the file is empty"]


def test_every_slurm_parameter_of_submitit_is_known() -> None:
    from submitit.slurm.slurm import _get_default_parameters

    from harness.grid.cluster_profile import FIELDS, RENAMED, SLURM_NAMES

    assert set(_get_default_parameters()) <= {*SLURM_NAMES, *RENAMED, *FIELDS}


@pytest.mark.parametrize("beside", [True, False])
def test_relative_data_lie_beside_the_grid_or_here_and_name_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: bool) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    (there / "img").mkdir(parents=True)
    here.mkdir()
    monkeypatch.chdir(here if beside else there)
    grid = (there if beside else here) / "grid.yaml"
    grid.write_text(START + "data: {source: imagefolder, path: img}\n")
    data = read_grid(grid).cells[0].data
    assert (data.path, data.name) == (str(there / "img"), "img")
