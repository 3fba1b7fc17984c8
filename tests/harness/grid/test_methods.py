"""Methods and chains of methods in a grid. (Methods alone: tests/harness/grid/test_axes.py and test_expansion.py.)"""

import pytest

from models.pruning.chain import Chain
from models.pruning.magnitude import Magnitude
from tests.support.grids import mistakes, prunings, read

pytestmark = pytest.mark.usefixtures("folder")


def grid(entry: str) -> str:
    return f"name: t\nmodels: [vim_micro]\nseeds: [0]\npruning: {entry}\n"


def test_knobs_expand_inside_a_chain_as_outside():
    entry = "[{chain: [{method: structured, ratio: [0.2, 0.3]}, {method: [magnitude, wanda], zip: {sparsity: [0.5]}}, semi_structured]}]"
    assert prunings(entry) == [
        "structured(ratio=0.2) + magnitude(0.5) + semi_structured",
        "structured(ratio=0.2) + wanda(0.5) + semi_structured",
        "structured(ratio=0.3) + magnitude(0.5) + semi_structured",
        "structured(ratio=0.3) + wanda(0.5) + semi_structured",
    ]


def test_several_splits_expand():
    entry = "[{chain: [{method: structured, ratio: 0.2}, semi_structured], split: [[1, 1], [1, 0]]}]"
    assert prunings(entry) == ["structured(ratio=0.2) + semi_structured", "structured(ratio=0.2) + semi_structured, 1:0"]


def test_a_label_is_the_chains():
    assert prunings("[{chain: [{method: magnitude, sparsity: 0.5}, {method: magnitude, sparsity: 0.8}], label: nested}]") == ["nested"]


def test_a_chain_of_one_method_is_that_method():
    entries = ("[{method: magnitude, sparsity: 0.5}]", "[{chain: [{method: magnitude, sparsity: 0.5}]}]")
    alone, chained = (read(grid(entry)).cells[0] for entry in entries)
    assert alone.id == chained.id and chained.method == Magnitude(sparsity=0.5)
    assert mistakes(grid("[{method: magnitude, sparsity: 0.5}, {chain: [{method: magnitude, sparsity: 0.5}]}]")) == [
        "grid.yaml:4: pruning[1]: magnitude(0.5) is already in the grid, on line 4"
    ]


def test_the_sequence_matters():
    one, other = "{method: structured, ratio: 0.2}", "{method: wanda, sparsity: 0.5}"
    first, second = read(grid(f"[{{chain: [{one}, {other}]}}, {{chain: [{other}, {one}]}}]")).cells
    assert first.id != second.id and isinstance(first.method, Chain)


LINK = "{method: magnitude, sparsity: 0.5}"
MISTAKES = {
    "both": (f"[{{method: magnitude, chain: [{LINK}]}}]", "pruning[0].method: an entry has a method or a chain, not both"),
    "no list": ("[{chain: magnitude}]", "pruning[0].chain: expected a list of methods, such as [{method: structured, ratio: 0.3}"),
    "empty": ("[{chain: []}]", "pruning[0].chain: expected a list of methods"),
    "unknown method": (f"[{{chain: [{LINK}, wandaa]}}]", "pruning[0].chain[1]: unknown method 'wandaa'; did you mean 'wanda'?"),
    "unknown knob": (f"[{{chain: [{LINK}, {{method: wanda, sparsty: 0.7}}]}}]", "pruning[0].chain[1].sparsty: unknown key; did you mean 'sparsity'?"),
    "missing knob": (f"[{{chain: [{LINK}, wanda]}}]", "pruning[0].chain[1]: wanda needs sparsity"),
    "wrong value": (f"[{{chain: [{LINK}, {{method: wanda, sparsity: 2}}]}}]", "pruning[0].chain[1].sparsity: sparsity must be in [0, 1), got 2"),
    "label inside": (
        "[{chain: [{method: wanda, sparsity: 0.5, label: x}, semi_structured]}]",
        "pruning[0].chain[0].label: the label belongs to the chain",
    ),
    "chain inside": (f"[{{chain: [{LINK}, {{chain: [semi_structured]}}]}}]", "pruning[0].chain[1].chain: a chain holds no other chain"),
    "list inside": (f"[{{chain: [{LINK}, [semi_structured]]}}]", "pruning[0].chain[1]: expected a method, got a list"),
    "unknown key": (f"[{{chain: [{LINK}, semi_structured], splt: [1, 1]}}]", "pruning[0].splt: unknown key; did you mean 'split'?"),
    "split": (
        f"[{{chain: [{LINK}, semi_structured], split: [1]}}]",
        "pruning[0].split: split must have one whole number of 0 or more for each of the 2",
    ),
    "split of one": (f"[{{chain: [{LINK}], split: [1, 1]}}]", "pruning[0]: a chain has at least two methods"),
    "dense": (f"[{{chain: [dense, {LINK}]}}]", "pruning[0]: dense prunes nothing, so it has no place in a chain"),
    "nothing left": (f"[{{chain: [{LINK}, {LINK}]}}]", "pruning[0]: magnitude at sparsity 0.5 drops nothing more than magnitude"),
    "one label": (
        "[{chain: [{method: structured, ratio: [0.1, 0.2]}, semi_structured], label: x}]",
        "pruning[0].label: one label for 2 choices; write an entry for each",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_a_chain_is_named_with_its_place(name):
    entry, said = MISTAKES[name]
    assert any(line.startswith(f"grid.yaml:4: {said}") for line in mistakes(grid(entry)))


def test_a_budget_that_a_link_cannot_use_is_a_mistake_of_the_grid():
    entry = "[{chain: [{method: structured, ratio: 0.2}, {method: iterative_magnitude, rounds: 1, rewind: none}], split: [1, 0]}]"
    assert "pruning[0]: iterative_magnitude with rewind: none trains for `finetune_epochs`" in mistakes(grid(entry))[0]


def test_exclude_names_a_chain_by_its_label_its_methods_or_as_a_chain():
    first = "{method: structured, ratio: 0.2}"
    chains = f"[dense, {{chain: [{first}, semi_structured]}}, {{chain: [{first}, {{method: wanda, sparsity: 0.5}}]}}]"
    for pattern, left in (
        ("chain", ["dense"]),
        ("{chain: [structured, semi_structured]}", ["dense", "structured(ratio=0.2) + wanda(0.5)"]),
        ("structured(ratio=0.2) + semi_structured", ["dense", "structured(ratio=0.2) + wanda(0.5)"]),
    ):
        assert prunings(f"{chains}\nexclude: [{{pruning: {pattern}}}]") == left
