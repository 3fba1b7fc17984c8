"""The method on every family; the arithmetic is tested in test_second_order.py."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from models.pruning.base import Budget, NetworkView
from models.pruning.masks import choose, living
from models.pruning.products import visit_layers
from models.pruning.registry import create_method, method_label
from models.pruning.scope import prunable_names
from models.pruning.semi_structured import takes_pattern
from models.registry import create_model
from tests.support.network_views import fake_network


def view_of(model: torch.nn.Module, images: Tensor) -> NetworkView:
    """A view without an engine: `rewrite` changes the model itself."""
    weights = {name: model.get_parameter(name).detach() for name in prunable_names(model)}
    network = fake_network(weights)

    def rewrite(batches, names, solve):
        masks = {}

        def change(name: str, products: Tensor) -> None:
            new, masks[name] = solve(name, weights[name].clone(), products)
            weights[name].copy_(new)

        visit_layers(model, names, images, change)
        return masks

    network.rewrite = rewrite
    return network


@pytest.mark.parametrize("name", ["vim_micro", "mambavision_micro", "vmamba_micro", "vssd_micro_32", "vit_micro", "mambaout_micro"])
def test_every_layer_of_every_family_ends_at_its_sparsity_and_outputs_stay_nearer_than_by_magnitude(name):
    """Over layers, by the geometric mean: of an untrained network, the inputs of some layers hardly go together."""
    torch.manual_seed(0)
    images = functional.interpolate(torch.randn(8, 3, 8, 8), 32, mode="bilinear")  # neighbours go together, as in photographs
    model = create_model(name, 10, 32).eval()
    network, method, errors = view_of(model, images), create_method("sparsegpt", sparsity=0.5), {}
    rewrite = network.rewrite

    def watched(batches, names, solve):
        def look(name: str, weight: Tensor, products: Tensor) -> tuple[Tensor, Tensor]:
            new, mask = solve(name, weight, products)
            by_size = weight * choose({name: weight.abs()}, 0.5, "layer")[name]
            changes = ((part - weight).double().reshape(len(products), -1, products.shape[-1]) for part in (new, by_size))
            errors[name] = [float((change @ products * change).sum()) for change in changes]
            return new, mask

        return rewrite(batches, names, look)

    network.rewrite = watched
    method.begin(network)
    assert set(network.masks) == set(errors) == set(prunable_names(model))
    for weight_name, mask in network.masks.items():
        assert living(~mask) == round(0.5 * mask.numel()) and not model.get_parameter(weight_name)[~mask].any(), weight_name
    ratios = [ours / by_size for ours, by_size in errors.values() if by_size > 0]  # a layer of zeros has no error
    assert len(ratios) >= len(errors) - 1 and math.prod(ratios) ** (1 / len(ratios)) < 0.8


def test_two_of_four_in_the_matrices_and_every_other_weight_as_it_was():
    torch.manual_seed(0)
    model = create_model("mambavision_micro", 10, 32).eval()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    network = view_of(model, torch.randn(4, 3, 32, 32))
    create_method("sparsegpt", pattern="2:4").begin(network)
    for name, mask in network.masks.items():
        if takes_pattern(mask.shape):
            assert (mask.reshape(-1, 4).sum(1) == 2).all() and not model.get_parameter(name)[~mask].any()
            assert not torch.equal(model.get_parameter(name)[mask], before[name][mask])
        else:
            assert mask.all() and torch.equal(model.get_parameter(name), before[name]), name


def test_masks_of_an_earlier_method_stay_also_outside_of_its_own_groups():
    model = create_model("vim_micro", 10, 32).eval()
    network = view_of(model, torch.randn(4, 3, 32, 32))
    create_method("magnitude", sparsity=0.3).begin(network)
    before = dict(network.masks)
    network.names = tuple(name for name in network.names if "_proj" in name)
    create_method("sparsegpt", sparsity=0.6, groups=("in_proj", "x_proj", "dt_proj", "out_proj")).begin(network)
    assert network.masks.keys() == before.keys()
    for name, mask in network.masks.items():
        assert not (mask & ~before[name]).any() and not model.get_parameter(name)[~mask].any()
        assert (
            torch.equal(mask, before[name]) if name not in network.names else living(~mask) == max(round(0.6 * mask.numel()), living(~before[name]))
        )


def test_layers_lose_as_many_as_the_ratios_say():
    """Those of one magnitude threshold and of Erdos-Renyi-Kernel, with weights that are gone already among them."""
    for ratios, other in (("magnitude", create_method("magnitude", sparsity=0.6)), ("erk", create_method("random", sparsity=0.6, ratios="erk"))):
        counts = []
        for method in (create_method("sparsegpt", sparsity=0.6, ratios=ratios), other):
            torch.manual_seed(0)
            network = view_of(create_model("vim_micro", 10, 32, depth=2), torch.randn(4, 3, 32, 32))
            create_method("magnitude", sparsity=0.1, scope="layer").begin(network)
            method.begin(network)
            counts.append({name: living(mask) for name, mask in network.masks.items()})
        assert counts[0] == counts[1]
        assert len({round(counts[0][name] / mask.numel(), 2) for name, mask in network.masks.items()}) > 4, "the layers differ"


def test_a_layer_whose_inputs_diverged_is_named():
    network = view_of(create_model("vim_micro", 10, 32).eval(), torch.full((1, 3, 32, 32), float("nan")))
    with pytest.raises(ValueError, match="'patch_embed.proj.weight': inputs hold NaN or infinity: the network has diverged"):
        create_method("sparsegpt", sparsity=0.5).begin(network)


def test_it_prunes_the_shared_trunk():
    method, budget = create_method("sparsegpt", sparsity=0.5), Budget(epochs=12, finetune_epochs=4)
    first, second = method.stages(budget)
    assert first == create_method("dense").stages(budget)[0] and second.method == method and second.start == "parent"


def test_labels():
    assert method_label(create_method("sparsegpt", sparsity=0.7)) == "sparsegpt(0.7)"
    assert method_label(create_method("sparsegpt", pattern="2:4", damping=0.1)) == "sparsegpt(pattern=2:4, damping=0.1)"


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({}, "sparsegpt needs sparsity, or pattern: 2:4"),
        ({"pattern": "2:4", "sparsity": 0.5}, "pattern 2:4 drops two of every four weights: leave sparsity out, got 0.5"),
        ({"pattern": "2:4", "ratios": "erk"}, "pattern 2:4 drops half of every matrix: leave ratios out, got erk"),
        ({"pattern": "2:4", "block": 6}, "block must be a multiple of 4 with pattern 2:4, got 6"),
        ({"sparsity": 0.5, "block": 0}, "block must be at least 1 column, got 0"),
        ({"sparsity": 0.5, "damping": 0.0}, "damping must be above 0, got 0"),
        ({"sparsity": 0.5, "damping": float("nan")}, "damping must be above 0, got nan"),
        ({"sparsity": 0.5, "batches": 0}, "batches must be at least 1 batch, got 0"),
        ({"sparsity": 1.0}, r"sparsity must be in \[0, 1\), got 1"),
        ({"sparsity": 0.5, "groups": ("mlp", "A_log")}, "groups must be weights of layers, which have inputs; leave out A_log"),
    ],
)
def test_impossible_knobs_are_refused(knobs, message):
    with pytest.raises(ValueError, match=message):
        create_method("sparsegpt", **knobs)


def test_a_network_that_it_cannot_prune_so_is_refused():
    model = create_model("vim_micro", 10, 32)
    with pytest.raises(ValueError, match="sparsity 0.9999 of every layer drops all"):
        create_method("sparsegpt", sparsity=0.9999).check(model)
    with pytest.raises(ValueError, match="sparsity 0.9999 with ratios: erk drops all"):
        create_method("sparsegpt", sparsity=0.9999, ratios="erk").check(model)
    create_method("sparsegpt", sparsity=0.9999, ratios="magnitude").check(model)
    with pytest.raises(ValueError, match="0 of 8 prunable parameters are matrices whose inputs are a multiple of 4"):
        create_method("sparsegpt", pattern="2:4", groups=("conv1d",)).check(model)
