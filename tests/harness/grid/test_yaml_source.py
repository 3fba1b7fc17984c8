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
    with pytest.raises(GridError, match="missing.yaml:1: no such file$"):
        read_grid(Path("missing.yaml"))
    Path("grid.yaml").touch()
    with pytest.raises(GridError, match="gird.yaml:1: no such file; did you mean 'grid.yaml'\\?"):
        read_grid(Path("gird.yaml"))


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
    "own tag on a list": ("recipe: {lr: !log [1, 2]}", "5: recipe.lr: the tag !log is not supported"),
    "own tag on a mapping": ("recipe: !mine {lr: 1}", "5: recipe: the tag !mine is not supported"),
    "own tag on an item": ("recipe: [{lr: 1}, !mine {lr: 2}]", "5: recipe[1]: the tag !mine is not supported"),
    "call of python": ("x-a: !!python/object/apply:os.getcwd []", "5: x-a: the tag tag:yaml.org,2002:python/object/apply:os.getcwd is not"),
    "set": ("recipe: {optimizer: !!set {adamw, sgd}}", "5: recipe.optimizer: the tag tag:yaml.org,2002:set is not supported"),
    "pairs with a sequence": ("recipe: !!omap [lr: 1]", "5: recipe: the tag tag:yaml.org,2002:omap is not supported"),
    "pairs": ("recipe: !!pairs [lr: 1]", "5: recipe: the tag tag:yaml.org,2002:pairs is not supported"),
    "bytes": ("data: {name: !!binary aGk=}", "5: data.name: the tag tag:yaml.org,2002:binary is not supported"),
    "text tag on a list": ("data: {name: !!str [a]}", "5: data.name: the tag tag:yaml.org,2002:str is not supported"),
    "tag on a key": ("recipe: {!mine lr: 1}", "5: recipe.lr: the tag !mine is not supported"),
    "python tag on a key": ("recipe: {!!python/name:os.sep lr: 1}", "5: recipe.lr: the tag tag:yaml.org,2002:python/name:os.sep is not supported"),
    "tag on a merged mapping": ("recipe: {<<: !mine {lr: 1}}", "5: recipe: the tag !mine is not supported"),
    "tag on a list of merged mappings": ("recipe: {<<: !mine [{lr: 1}]}", "5: recipe.<<: the tag !mine is not supported"),
    "tag that does not fit": ("data: {flip: !!bool maybe}", "5: data.flip: the tag tag:yaml.org,2002:bool does not fit 'maybe'; write the value"),
    "null tag on text": ("data: {path: !!null here}", "5: data.path: the tag tag:yaml.org,2002:null does not fit 'here'; write the value"),
    "whole number tag on text": ("data: {samples: !!int many}", "5: data.samples: the tag tag:yaml.org,2002:int does not fit 'many'; write"),
    "merge tag on a key": ("recipe: {!!merge lr: 1}", "5: recipe.lr: the tag tag:yaml.org,2002:merge does not fit 'lr'; write the value"),
    "anchor in itself": ("recipe: &a [*a]", "5: recipe[0]: the anchor contains itself"),
}


@pytest.mark.parametrize("added, said", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_with_its_line_and_key(folder: Path, added: str, said: str) -> None:
    (found,) = mistakes(START + added + "\n")
    assert found.startswith(f"grid.yaml:{said}")


def test_the_tag_of_the_whole_file_is_refused(folder: Path) -> None:
    assert mistakes("!grid\n" + START) == ["grid.yaml:1: the tag !grid is not supported"]


def test_tags_that_say_what_a_value_is_anyway_work(folder: Path) -> None:
    cell = read(START + "data: !!map {name: !!str 3, flip: !!bool true}\nrecipe: {lr: !!float 1, betas: !!seq [0.5, 0.6]}\n").cells[0]
    assert (cell.data.name, cell.data.flip, cell.recipe.lr, cell.recipe.betas) == ("3", True, 1.0, (0.5, 0.6))


def test_a_message_is_a_line_without_control_characters(folder: Path) -> None:
    (line,) = mistakes(START + 'recipe: {"\\e[31m\\nlr": 1}\n')
    assert line.startswith("grid.yaml:5: recipe.<U+001B>[31m<U+000A>lr: unknown key")
