import pytest
import torch

from models.pruning.allocation import erk
from models.pruning.base import Budget
from models.pruning.registry import create_method
from tests.support.network_views import fake_network, random_weights, same

BUDGET = Budget(epochs=12, finetune_epochs=4)


def masks_of(seed: int = 0, **knobs: object) -> dict[str, torch.Tensor]:
    network = fake_network(random_weights(), seed=seed)
    create_method("random", **knobs).begin(network)
    return dict(network.masks)


def zeros(masks: dict[str, torch.Tensor]) -> dict[str, int]:
    return {name: int((~mask).sum()) for name, mask in masks.items()}


def test_it_drops_an_exact_number_of_weights_over_the_network_or_in_each_layer():
    assert sum(zeros(masks_of(sparsity=0.85)).values()) == 170
    assert zeros(masks_of(sparsity=0.75, scope="layer")) == {"a": 30, "b": 90, "c": 30}


def test_the_lot_is_the_cells_seeds_unless_the_method_has_its_own():
    assert same(masks_of(1, sparsity=0.5), masks_of(1, sparsity=0.5))
    assert not same(masks_of(1, sparsity=0.5), masks_of(2, sparsity=0.5))
    assert same(masks_of(1, sparsity=0.5, mask_seed=7), masks_of(2, sparsity=0.5, mask_seed=7))


def test_every_weight_is_dropped_equally_often():
    share = sum(masks_of(seed, sparsity=0.7)["b"].float() for seed in range(400)) / 400
    assert float((share - 0.3).abs().max()) < 0.11  # 4.8 standard deviations


def test_parameters_of_one_shape_get_different_lots():
    network = fake_network({"a": torch.ones(50), "b": torch.ones(50)})
    create_method("random", sparsity=0.5, scope="layer").begin(network)
    assert not torch.equal(network.masks["a"], network.masks["b"])


def test_a_shuffled_mask_has_the_ratios_of_the_magnitude_mask_and_other_places():
    weights = random_weights()
    weights["a"] *= 10
    networks = [fake_network({name: weight.clone() for name, weight in weights.items()}) for _ in range(2)]
    create_method("magnitude", sparsity=0.6).begin(networks[0])
    create_method("random", sparsity=0.6, ratios="magnitude").begin(networks[1])
    assert zeros(networks[0].masks) == zeros(networks[1].masks) and zeros(networks[0].masks)["a"] < 10
    assert not same(networks[0].masks, networks[1].masks)


def test_erk_ratios_are_those_of_the_allocation():
    assert zeros(masks_of(sparsity=0.6, ratios="erk")) == erk({name: weight.shape for name, weight in random_weights().items()}, 0.6)


def test_it_prunes_the_trained_network_or_trains_from_scratch_as_long_as_the_control():
    dense = create_method("dense").stages(BUDGET)
    trained, scratch = create_method("random", sparsity=0.5), create_method("random", sparsity=0.5, at="init")
    assert trained.stages(BUDGET)[0] == dense[0] and trained.stages(BUDGET)[1].method == trained
    (only,) = scratch.stages(BUDGET)
    assert (only.epochs, only.start, only.method) == (16, "scratch", scratch)


def test_borrowed_ratios_and_a_ratio_for_every_layer_contradict_each_other():
    with pytest.raises(ValueError, match="scope: layer sets the ratio of every layer itself"):
        create_method("random", sparsity=0.5, ratios="erk", scope="layer")
