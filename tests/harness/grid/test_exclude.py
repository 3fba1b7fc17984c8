"""Patterns that drop cells, and patterns that are mistakes."""

from pathlib import Path

import pytest

from tests.support.grids import START, mistakes, read

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


def test_patterns_come_in_a_list(folder: Path) -> None:
    assert mistakes(START + "exclude: {seed: 0}\n") == ["grid.yaml:5: exclude: expected a list of patterns, such as [{model: vim_micro, seed: 0}]"]
