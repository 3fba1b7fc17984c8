"""Mappings to typed choices: lists expand, zip pairs, every value is of its field's type."""

from pathlib import Path

import pytest

from tests.support.grids import START, mistakes, options, prunings, read


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


@pytest.mark.parametrize("written, number", [("1e-3", 1e-3), ("2E+1", 20.0), ("3", 3.0), (".5", 0.5), ("1.0e-3", 1e-3), ("+4", 4.0)])
def test_numbers_may_be_written_in_every_usual_way(folder: Path, written: str, number: float) -> None:
    cell = read(START + f"recipe: {{lr: {written}}}\n").cells[0]
    assert cell.recipe.lr == number and type(cell.recipe.lr) is float


# What is added to a good grid, and the line that it gives
MISTAKES = {
    "unknown field": ("recipe:\n  lr: 0.1\n  epocs: 3", "7: recipe.epocs: unknown key; did you mean 'epochs'? valid: epochs, finetune_epochs,"),
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
    "short list": ("recipe: {betas: [0.9]}", "5: recipe.betas: expected a list of 2 numbers, got a list of 1"),
    "number for a list": ("recipe: {betas: 0.9}", "5: recipe.betas: expected a list of 2 numbers, got 0.9"),
    "recipe is no mapping": ("recipe: 3", "5: recipe: expected a mapping, got 3"),
    "unequal zip": ("recipe: {zip: {lr: [1, 2], epochs: [1, 2, 3]}}", "5: recipe.zip: lists of unequal length: lr has 2, epochs has 3"),
    "zip of a number": ("recipe: {zip: {lr: 1}}", "5: recipe.zip.lr: expected a list, got 1"),
    "zip of an unknown field": ("recipe: {zip: {lrr: [1]}}", "5: recipe.zip.lrr: unknown key; did you mean 'lr'?"),
    "zip of nothing": ("recipe: {zip: {}}", "5: recipe.zip: expected lists of equal length by key, such as zip: {a: [1, 2], b: [3, 4]}"),
    "zip beside the field": ("recipe: {lr: 1, zip: {lr: [1], epochs: [2]}}", "5: recipe.zip.lr: also given outside zip; remove one of the two"),
    "zip with a bad value": ("recipe: {zip: {lr: [1, x], epochs: [2, 3]}}", "5: recipe.zip.lr[1]: expected a number, got text 'x'"),
}


@pytest.mark.parametrize("added, said", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_with_its_line_and_key(folder: Path, added: str, said: str) -> None:
    (found,) = mistakes(START + added + "\n")
    assert found.startswith(f"grid.yaml:{said}")


def test_lists_that_multiply_beyond_measure_are_refused_before_they_do(folder: Path) -> None:
    numbers = "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]"
    lists = ", ".join(f"{field}: {numbers}" for field in ("epochs", "finetune_epochs", "batch_size", "lr", "finetune_lr", "clip_grad"))
    (line,) = mistakes(START + f"recipe: {{{lists}}}\n")
    assert line.startswith("grid.yaml:5: recipe: its lists stand for 1000000 choices, and an entry may have at most 100000; shorten them")
