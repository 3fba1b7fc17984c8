"""Chains of methods: their stages, their budget, what they refuse, and masks that stay."""

from dataclasses import replace

import pytest
import torch

from models.pruning.base import Budget
from models.pruning.chain import Chain
from models.pruning.masks import sparsity_of
from models.pruning.registry import create_method, method_label
from tests.support.network_views import fake_network, random_weights, same

BUDGET = Budget(epochs=6, finetune_epochs=5)
STRUCTURED = create_method("structured", ratio=0.3)
HALF, MOST = create_method("magnitude", sparsity=0.5), create_method("magnitude", sparsity=0.8)


def test_a_method_starts_from_the_result_of_the_method_before_it():
    stages = Chain(methods=(STRUCTURED, HALF)).stages(BUDGET)
    assert [(stage.name, stage.epochs, stage.start, stage.method) for stage in stages] == [
        ("train", 6, "scratch", None),
        ("finetune", 2, "parent", STRUCTURED),
        ("finetune", 3, "parent", HALF),
    ]


@pytest.mark.parametrize(
    ("split", "finetune_epochs", "parts"),
    [((), 5, [2, 3]), ((), 1, [0, 1]), ((), 0, [0, 0]), ((1, 0), 5, [5, 0]), ((3, 1), 8, [6, 2]), ((1, 1), 5, [2, 3])],
)
def test_a_chain_fine_tunes_as_long_as_one_method(split, finetune_epochs, parts):
    chain = Chain(methods=(STRUCTURED, HALF), split=split)
    assert [part.finetune_epochs for part in chain.budgets(replace(BUDGET, finetune_epochs=finetune_epochs))] == parts
    assert sum(stage.epochs for stage in chain.stages(replace(BUDGET, finetune_epochs=finetune_epochs))) == 6 + finetune_epochs


def test_a_chain_begins_as_its_first_method_does_alone():
    for first in (STRUCTURED, create_method("dynamic", sparsity=0.5), create_method("iterative_magnitude", rounds=2)):
        alone = first.stages(BUDGET)
        assert Chain(methods=(first, create_method("wanda", sparsity=0.9)), split=(1, 0)).stages(BUDGET)[: len(alone)] == alone


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        ([("magnitude", {"sparsity": 0.5})], "at least two methods"),
        ([("dense", {}), ("magnitude", {"sparsity": 0.5})], "dense prunes nothing, .*leave it out"),
        ([("magnitude", {"sparsity": 0.5}), ("dynamic", {"sparsity": 0.8})], "dynamic prunes while it trains from scratch, .*front"),
        ([("magnitude", {"sparsity": 0.5}), ("random", {"sparsity": 0.8, "at": "init"})], "random prunes while it trains from scratch"),
        ([("structured", {"ratio": 0.5}), ("early_bird", {"ratio": 0.5})], "early_bird prunes while it trains from scratch"),
        ([("structured", {"ratio": 0.5}), ("iterative_magnitude", {"rounds": 2})], "iterative_magnitude would rewind .*set rewind to learning_rate"),
        ([("token_merging", {"r": 2, "score": "timescale"}), ("block_removal", {"blocks": 1})], "reads Delta of the block before.*score: cosine"),
        ([("block_removal", {"blocks": 1}), ("token_merging", {"r": 2, "score": "timescale"})], "reads Delta of the block before"),
        ([("sparsegpt", {"pattern": "2:4"}), ("structured", {"ratio": 0.5})], "structured would break the blocks of four of sparsegpt"),
        (
            [("semi_structured", {}), ("structured", {"ratio": 0.5})],
            "structured would break the blocks of four of semi_structured.*put structured first",
        ),
        (
            [("magnitude", {"sparsity": 0.8}), ("wanda", {"sparsity": 0.8})],
            "wanda at sparsity 0.8 drops nothing more than magnitude: .*above 0.8",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_remedy(methods, said):
    with pytest.raises(ValueError, match=said):
        Chain(methods=tuple(create_method(name, **knobs) for name, knobs in methods))


@pytest.mark.parametrize("split", [(1,), (1, -1), (0, 0), (1, 2, 3)])
def test_a_split_has_a_part_for_each_method(split):
    with pytest.raises(ValueError, match="split must have one whole number of 0 or more for each of the 2 methods"):
        Chain(methods=(HALF, MOST), split=split)


def test_a_chain_in_a_chain_is_refused():
    with pytest.raises(ValueError, match="holds no other chain"):
        Chain(methods=(Chain(methods=(HALF, MOST)), STRUCTURED))


def test_a_lower_sparsity_may_follow_a_removal_of_units_or_be_of_other_groups():
    Chain(methods=(HALF, STRUCTURED, HALF))
    Chain(methods=(HALF, create_method("sparsegpt", pattern="2:4")))
    Chain(methods=(MOST, create_method("magnitude", sparsity=0.5, groups=("head",))))


def test_a_part_of_the_budget_that_a_method_cannot_use_is_refused():
    movement = create_method("iterative_magnitude", rounds=2, rewind="none")
    with pytest.raises(ValueError, match="iterative_magnitude with rewind: none trains for `finetune_epochs`"):
        Chain(methods=(STRUCTURED, movement), split=(1, 0)).stages(BUDGET)


def test_a_network_that_one_method_cannot_prune_is_refused_by_the_methods_name():
    with pytest.raises(ValueError, match="structured: the network has no units"):
        Chain(methods=(STRUCTURED, HALF)).check(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("split", [(), (1, 1), (3, 3)])
def test_equal_parts_are_the_default(split):
    assert Chain(methods=(HALF, MOST), split=split).proportions == () and Chain(methods=(HALF, MOST), split=(4, 2)).proportions == (2, 1)


def test_a_chain_is_named_after_its_methods():
    assert method_label(Chain(methods=(STRUCTURED, MOST))) == "structured(ratio=0.3) + magnitude(0.8)"
    assert method_label(Chain(methods=(STRUCTURED, MOST), split=(4, 2))) == "structured(ratio=0.3) + magnitude(0.8), 2:1"


SECOND = {
    "magnitude": {"sparsity": 0.8},
    "magnitude, by layer": {"sparsity": 0.8, "scope": "layer"},
    "random": {"sparsity": 0.8},
    "random, magnitude": {"sparsity": 0.8, "ratios": "magnitude"},
    "wanda": {"sparsity": 0.8},
    "iterative_magnitude": {"rounds": 1, "rate": 0.6, "rewind": "none"},
}


@pytest.mark.parametrize("name", SECOND)
def test_a_second_method_keeps_what_is_masked_and_counts_it(name):
    weights = {key: weight for key, weight in random_weights().items() if key != "a"}  # whose rows of one weight wanda never drops
    norms = {name: torch.ones(()) for name in weights}
    first = fake_network(weights)
    create_method("random", sparsity=0.5, mask_seed=7).begin(first)
    second = fake_network(weights, norms=norms)
    second.masks = second.inherited = dict(first.masks)
    create_method(name.split(",")[0], **SECOND[name]).begin(second)
    assert all(not (second.masks[key] & ~first.masks[key]).any() for key in weights)
    assert sparsity_of(second.masks) == pytest.approx(0.8, abs=0.01)


def test_a_gradient_method_ranks_the_living_weights_alone():
    from models.pruning.base import Progress

    weights, gradients = random_weights(), random_weights(3)
    network = fake_network(weights, gradients)
    before = {key: torch.rand(weight.shape, generator=torch.Generator().manual_seed(1)) < 0.5 for key, weight in weights.items()}
    network.masks = network.inherited = before
    network.apply(before)
    create_method("gradient", sparsity=0.8, criterion="movement").after_backward(network, Progress(step=1, steps=4, steps_per_epoch=4))
    assert all(not (network.masks[key] & ~before[key]).any() for key in weights) and sparsity_of(network.masks) == pytest.approx(0.8, abs=0.01)


def test_masks_outside_the_second_methods_groups_stay():
    weights = random_weights()
    network = fake_network(weights)
    network.names = ("a",)
    network.masks = network.inherited = {"b": weights["b"] > 0}
    assert network.kept() == {}
    network.set_masks({"a": weights["a"] > 0})
    assert same(network.masks, {"b": network.inherited["b"], "a": weights["a"] > 0})
