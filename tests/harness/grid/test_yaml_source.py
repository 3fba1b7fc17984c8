"""YAML with lines: anchors work; tags, equal keys and files that are no grid are refused."""

from pathlib import Path

import pytest

from harness.grid.read import read_grid
from harness.grid.yaml_source import GridError
from tests.support.grids import START, mistakes, read


def test_anchors_and_merge_keys_work(folder: Path) -> None:
    grid = read(
        "x-base: &base {lr: 0.1, epochs: 3}\nname: t\nmodels: &models [vim_micro]\npruning: [dense]\nseeds: [0]\n"
        "recipe: [{<<: *base}, {<<: *base, epochs: 4}, {<<: [{lr: 0.5}, *base]}]\n"
    )
    assert [(cell.recipe.lr, cell.recipe.epochs) for cell in grid.cells] == [(0.1, 3), (0.1, 4), (0.5, 3)]


def test_a_mistake_in_an_aliased_value_is_reported_once_a_use(folder: Path) -> None:
    found = mistakes(START + "x-a: &a {lr: no number}\nrecipe: [*a, {<<: *a, epochs: 3}]\n")
    assert found == [f"grid.yaml:5: recipe[{index}].lr: expected a number, got text 'no number'" for index in (0, 1)]


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


# What is added to a good grid, and the line that it gives
MISTAKES = {
    "key twice": ("recipe:\n  lr: 0.1\n  epochs: 3\n  lr: 0.2", "8: recipe.lr: given twice; first in line 6"),
    "top key twice": ("seeds: [1]", "5: seeds: given twice; first in line 4"),
    "merge key twice": ("x-a: &a {lr: 1}\nrecipe:\n  <<: *a\n  <<: *a", "8: recipe.<<: given twice; write <<: [*a, *b]"),
    "merge of a list": ("recipe: {<<: 3}", "5: recipe.<<: expected a mapping or a list of mappings"),
    "python tag": ("recipe: {lr: !!python/object:os.system 3}", "5: recipe.lr: the tag tag:yaml.org,2002:python/object:os.system is not supported"),
    "anchor in itself": ("recipe: &a [*a]", "5: recipe[0]: the anchor contains itself"),
}


@pytest.mark.parametrize("added, said", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_with_its_line_and_key(folder: Path, added: str, said: str) -> None:
    (found,) = mistakes(START + added + "\n")
    assert found.startswith(f"grid.yaml:{said}")
