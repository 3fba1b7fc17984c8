"""The entries of each axis: what they stand for, and the line and key of each mistake."""

from pathlib import Path

import pytest

from harness.grid.read import Grid, read_grid
from harness.grid.yaml_source import GridError
from jobs.experiment.cell import Cell
from jobs.experiment.specs import ClusterSpec
from tests.support.grids import START, labels, mistakes, prunings, read


def test_names_may_be_a_list(folder: Path) -> None:
    grid = read("name: t\npruning: [dense]\nseeds: 1\nmodels: [{name: [vim_micro, vim_tiny], depth: [2, 3]}]\n")
    assert [cell.model.label for cell in grid.cells] == ["vim_micro(depth=2)", "vim_micro(depth=3)", "vim_tiny(depth=2)", "vim_tiny(depth=3)"]


def test_arguments_of_timm_expand_and_enter_the_id(folder: Path) -> None:
    entries = "[{name: timm/resnet18, layers: [1, 1, 1, 1], drop_rate: [0.1, 0.2]}, {name: timm/resnet18, layers: [[1, 1], [2, 2]]}]"
    grid = read(f"name: t\npruning: [dense]\nseeds: 1\nmodels: {entries}\n")
    labels = ["(layers=1-1-1-1,drop_rate=0.1)", "(layers=1-1-1-1,drop_rate=0.2)", "(layers=1-1)", "(layers=2-2)"]
    assert [cell.model.label for cell in grid.cells] == [f"timm/resnet18{label}" for label in labels]
    assert len({cell.id for cell in grid.cells}) == 4
    for cell in grid.cells:
        assert Cell.from_json(cell.to_json()) == cell
    assert grid.cells[2].to_json()["model"]["options"] == {"layers": [1, 1]}  # timm has the defaults, so a record holds what is given


def test_dense_is_there_once_however_often_it_is_listed(folder: Path) -> None:
    assert prunings("[dense, {method: dense}, {method: [dense, dense]}]") == ["dense"]


def test_a_number_of_seeds_counts_from_zero(folder: Path) -> None:
    assert [cell.seed for cell in read(START.replace("[0]", "3")).cells] == [0, 1, 2]


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
    "option out of range": ("models:\n- name: vim_micro\n  se:\n    ratio: 0", "4: models[0].se.ratio: must be 1 or more, got 0"),
    "zipped option out of range": (
        "models:\n- name: vim_micro\n  zip:\n    dim: [8]\n    depth: [0]",
        "5: models[0].depth: must be 1 or more, got 0",
    ),
    "variant for a nested option": (
        "models: [{name: vim_micro, zip: {se: [{ratio: [1, 2]}], depth: [3]}}]",
        "1: models[0].zip.se[0]: stands for 2 choices; an item of zip must be a single choice",
    ),
    "model twice": ("models:\n- vim_micro\n- {name: vim_micro, depth: 4}", "3: models[1]: vim_micro is already in the grid, on line 2"),
    "label for two": ("models: [{name: vim_micro, depth: [2, 3], label: x}]", "1: models[0].label: one label for 2 choices;"),
    "label taken": ("models:\n- vim_micro\n- {name: vim_tiny, label: vim_micro}", "3: models[1]: the label 'vim_micro' is already used on line 2"),
    "label is a number": ("models: [{name: vim_micro, label: 3}]", "1: models[0].label: expected text"),
    "a model of timm's that is none": (
        "models: [timm/resnet19]",
        "1: models[0]: unknown model 'timm/resnet19'; did you mean 'timm/resnet18'? `python -m models.timm_source` prints all ",
    ),
    "timm's model without its prefix": ("models: [resnet18]", "1: models[0]: unknown model 'resnet18'; did you mean 'timm/resnet18'?"),
    "a tag without weights": (
        "models: [vim_micro, timm/resnet18.a1_in1k]",
        "1: models[1]: the tag a1_in1k names weights, and nothing is downloaded here: give their file as pretrained, or leave the tag out",
    ),
    "an argument that the harness owns": (
        "models: [{name: timm/resnet18, in_chans: 1}]",
        "1: models[0].in_chans: images have three channels here: leave in_chans out",
    ),
    "an argument that timm's model gives itself": (
        "models: [{name: timm/mixer_s32_224, num_blocks: 2}]",
        "1: models[0].num_blocks: timm/mixer_s32_224 sets num_blocks itself; choose another of timm's models",
    ),
    "an argument that timm does not have": (
        "models: [{name: timm/resnet18, drop_path_rte: 2}]",
        "1: models[0].drop_path_rte: unknown key; did you mean 'drop_path_rate'? valid: name, label, cluster, pretrained, pretrained_key, layers, ",
    ),
    "an argument of a wrong type": ("models: [{name: timm/resnet18, layers: 2}]", "1: models[0].layers: expected a list of whole numbers"),
    "a variant of another family": (
        "models: [{name: vssd_micro, s4: true}]",
        "1: models[0].s4: vssd_micro does not take this variant: it has no scan",
    ),
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
    "sparsity twice": ("pruning: [{method: magnitude, sparsity: [0.5, 0.5]}]", "1: pruning[0]: magnitude(0.5) is already in the grid, on line 1"),
    "negative seed": ("seeds: [0, -1]", "1: seeds[1]: expected a whole number from 0 to 4294967295"),
    "large seed": ("seeds: [4294967296]", "1: seeds[0]: expected a whole number from 0 to 4294967295"),
    "seed is text": ("seeds: [a]", "1: seeds[0]: expected a whole number from 0 to 4294967295"),
    "seed is true": ("seeds: [true]", "1: seeds[0]: expected a whole number from 0 to 4294967295"),
    "seed twice": ("seeds:\n- 3\n- 3", "3: seeds[1]: seed 3 is given twice"),
    "no seed": ("seeds: []", "1: seeds: missing: expected a list such as [0, 1, 2], or a number n, at most 10000, for the seeds 0 to n - 1"),
    "zero seeds": ("seeds: 0", "1: seeds: expected a list such as [0, 1, 2], or a number n, at most 10000, for the seeds 0 to n - 1"),
    "forgotten brackets": ("seeds: 20260101", "1: seeds: expected a list such as [0, 1, 2], or a number n, at most 10000,"),
}


@pytest.mark.parametrize("lines, said", ENTRIES.values(), ids=ENTRIES)
def test_a_bad_entry_is_named_with_its_line_and_key(folder: Path, lines: str, said: str) -> None:
    rest = [line for line in START.splitlines() if line.split(":")[0] != lines.split(":")[0]]
    (found,) = mistakes("\n".join([lines, *rest]) + "\n")
    assert found.startswith(f"grid.yaml:{said}")


# What is added to a good grid, and the line that it gives
MISTAKES = {
    "same recipe twice": ("recipe: [{lr: 0.1}, {lr: 1e-1}]", "5: recipe[1]: this is already in the grid, on line 5"),
    "negative epochs": ("recipe: {epochs: -1}", "5: recipe.epochs: must be 0 or more, got -1"),
    "no epoch": (
        "recipe: {epochs: 0, finetune_epochs: 0}",
        "5: recipe.epochs: epochs and finetune_epochs are both 0, and vim_micro has no weights: give it `pretrained`, raise epochs, or exclude",
    ),
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
        "5: recipe.batch_size: 63 cannot be divided by 2 ranks; use a multiple of 2",
    ),
    "batch over micro-batches": (
        "recipe:\n  micro_batch_size: 12\n  batch_size: 64\ncluster: {tasks_per_node: 2}",
        "7: recipe.batch_size: 64 cannot be divided by 2 ranks x micro_batch_size 12; use a multiple of 24",
    ),
    "val_fraction": ("data: {val_fraction: 1}", "5: data.val_fraction: must be above 0 and below 1, got 1.0"),
    "crop_scale": ("data: {crop_scale: [0.9, 0.8]}", "5: data.crop_scale: must be [low, high] with 0 < low <= high <= 1, got [0.9, 0.8]"),
    "no path": ("data: {source: cifar10}", "5: data.path: source cifar10 needs it"),
    "no test_path": ("data: {source: beton, path: a.beton}", "5: data.test_path: source beton needs it"),
    "useless path": ("data: {source: digits, path: x}", "5: data.path: source digits takes no path"),
    "large shift": ("data: {augment: shift, shift_px: 32}", "5: data.shift_px: must be below the image's size, 32 pixels, got 32"),
}


@pytest.mark.parametrize("added, said", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_with_its_line_and_key(folder: Path, added: str, said: str) -> None:
    (found,) = mistakes(START + added + "\n")
    assert found.startswith(f"grid.yaml:{said}")


def weights(folder: Path, **contents: str) -> None:
    for name, content in contents.items():
        path = folder / name / "best.pth"
        path.parent.mkdir(parents=True)
        path.write_text(content)


def grid_of(folder: Path, models: str) -> Grid:
    (folder / "grid.yaml").write_text(f"name: t\nseeds: [0]\npruning: [dense]\nmodels: [{models}]\n")
    return read_grid(folder / "grid.yaml")


def test_files_of_one_name_get_two_labels_and_two_ids(tmp_path: Path) -> None:
    weights(tmp_path, seed0="0", seed1="1")
    grid = grid_of(tmp_path, "{name: vim_micro, pretrained: [seed0/best.pth, seed1/best.pth]}, {name: mambavision_micro, pretrained: seed0/best.pth}")
    assert [cell.model.label for cell in grid.cells] == [
        "vim_micro(pretrained=seed0/best.pth)",
        "vim_micro(pretrained=seed1/best.pth)",
        "mambavision_micro(pretrained=best.pth)",
    ]
    assert [cell.model.options["pretrained"] for cell in grid.cells[:2]] == [str(tmp_path / f"seed{n}/best.pth") for n in (0, 1)]
    assert len({cell.id for cell in grid.cells}) == 3 and not grid.notes


def test_a_file_that_moves_keeps_its_id_and_a_file_that_is_replaced_gets_another(tmp_path: Path) -> None:
    weights(tmp_path, a="0", b="0", c="1")
    ids = {folder: grid_of(tmp_path, f"{{name: vim_micro, pretrained: {folder}/best.pth}}").cells[0].id for folder in "abc"}
    assert ids["a"] == ids["b"] != ids["c"]


def test_files_of_the_same_content_are_one_model_with_a_note(tmp_path: Path) -> None:
    weights(tmp_path, seed0="0", seed1="0")
    grid = grid_of(tmp_path, "{name: vim_micro, pretrained: [seed0/best.pth, seed1/best.pth]}")
    (note,) = grid.notes
    assert len(grid.cells) == 1
    assert note.startswith(
        f"{tmp_path}/grid.yaml:4: models[0]: note: {tmp_path}/seed1/best.pth has the same content as {tmp_path}/seed0/best.pth: vim_micro("
    )


def test_the_same_file_twice_is_a_mistake(tmp_path: Path) -> None:
    weights(tmp_path, seed0="0")
    with pytest.raises(GridError, match="is already in the grid, on line 4"):
        grid_of(tmp_path, "{name: vim_micro, pretrained: seed0/best.pth}, {name: vim_micro, pretrained: ./seed0/best.pth}")


def test_exclude_knows_a_file_by_its_path_as_written(tmp_path: Path) -> None:
    weights(tmp_path, seed0="0", seed1="1")
    path = tmp_path / "grid.yaml"
    text = "name: t\nseeds: [0]\npruning: [dense]\nmodels: [{name: vim_micro, pretrained: [seed0/best.pth, seed1/best.pth]}]\n"
    path.write_text(text + "exclude: [{model: {pretrained: seed1/best.pth}}]\n")
    assert [cell.model.label for cell in read_grid(path).cells] == ["vim_micro(pretrained=seed0/best.pth)"]


@pytest.mark.parametrize("empty", ["recipe:", "data:", "cluster:", "exclude:", "recipe: {}", "data: {}", "cluster: {}", "recipe: ~", "data: null"])
def test_a_section_that_is_left_empty_means_the_defaults(folder: Path, empty: str) -> None:
    assert read(START + empty + "\n").cells == read(START).cells and read(START + empty + "\n").cluster == ClusterSpec()


@pytest.mark.parametrize("key", ["models", "pruning", "seeds", "name"])
def test_a_key_that_must_be_given_is_missing_if_it_is_left_empty(folder: Path, key: str) -> None:
    (line,) = mistakes("".join(f"{key}:\n" if text.startswith(key) else f"{text}\n" for text in START.splitlines()))
    assert f" {key}: missing: " in line


@pytest.mark.parametrize("key", ["recipe", "data"])
def test_a_list_without_entries_or_with_an_empty_entry_is_refused(folder: Path, key: str) -> None:
    assert mistakes(START + f"{key}: []\n") == [f"grid.yaml:5: {key}: missing: the grid needs at least one entry"]
    assert mistakes(START + f"{key}:\n  - {{}}\n  -\n")[0] == f"grid.yaml:7: {key}[1]: expected a mapping, got nothing"
