import pytest
import torch
from torch import nn

from models.pruning.base import Budget, NetworkView, Progress, PruningMethod
from models.pruning.structure import Structure
from tests.support.network_views import fake_network, random_weights, same


class Plain(PruningMethod):
    """A method that overrides nothing."""

    name = "plain"


def test_a_view_reads_all_prunable_parameters_in_the_models_order():
    weights, gradients = random_weights(1), random_weights(2)
    network = fake_network(weights, gradients)
    assert same(network.weights(), weights) and same(network.gradients(), gradients)
    assert not network.masks and not network.state and not network.groups and not network.gates


def test_setting_masks_replaces_them_and_zeroes_the_weights_that_they_drop():
    weights = random_weights()
    network = fake_network(weights)
    masks = {name: weight > 0 for name, weight in weights.items()}
    network.set_masks(masks)
    assert same(network.masks, masks) and network.masks is not masks
    assert all((weights[name][~mask] == 0).all() and (weights[name][mask] > 0).all() for name, mask in masks.items())


def test_a_view_without_an_engine_neither_removes_units_nor_adds_gradients():
    network = fake_network(random_weights())
    with pytest.raises(RuntimeError, match="no engine"):
        network.remove(Structure(kept={}, counts={}))
    with pytest.raises(RuntimeError, match="no engine"):
        network.add_l1("a", 0.1)


def test_hooks_do_nothing_unless_a_method_overrides_them():
    method, weights = Plain(), random_weights()
    before, network = {name: weight.clone() for name, weight in weights.items()}, fake_network(weights)
    progress = Progress(step=1, steps=2, steps_per_epoch=1)
    method.begin(network)
    method.after_backward(network, progress)
    method.after_step(network, progress)
    assert same(weights, before) and not network.masks and not network.state
    assert method.check(nn.Linear(2, 2)) is None and method.gate(nn.Linear(2, 2), ()) == {}
    assert (method.keeps_dense, method.needs_gradients, method.removes_units) == (False, False, False)


def test_a_method_must_name_its_stages():
    with pytest.raises(NotImplementedError):
        Plain().stages(Budget(epochs=1, finetune_epochs=1))


def test_a_views_state_and_masks_are_its_own():
    first, second = (
        NetworkView(names=(), read_weight=torch.zeros, read_gradient=torch.zeros, input_norms={}.get, apply=lambda masks: None) for _ in range(2)
    )
    first.state["a"] = torch.ones(1)
    first.set_masks({"a": torch.ones(1, dtype=torch.bool)})
    assert not second.state and not second.masks
