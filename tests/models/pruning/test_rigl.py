import math

import pytest
import torch

from models.pruning.allocation import erk
from models.pruning.base import Budget, NetworkView, Progress
from models.pruning.registry import create_method
from tests.support.network_views import fake_network, random_weights, same


def at(step: int, steps: int = 1000) -> Progress:
    return Progress(step=step, steps=steps, steps_per_epoch=100)


def begun(method, gradients: dict | None = None) -> tuple[NetworkView, dict[str, torch.Tensor]]:
    weights = random_weights()
    network = fake_network(weights, gradients if gradients is not None else random_weights(5))
    method.begin(network)
    return network, weights


def zeros(masks: dict[str, torch.Tensor]) -> dict[str, int]:
    return {name: int((~mask).sum()) for name, mask in masks.items()}


def test_training_starts_at_the_final_sparsity_spread_by_erk_or_evenly():
    shapes = {name: weight.shape for name, weight in random_weights().items()}
    assert zeros(begun(create_method("rigl", sparsity=0.7))[0].masks) == erk(shapes, 0.7)
    assert zeros(begun(create_method("rigl", sparsity=0.75, distribution="uniform"))[0].masks) == {"a": 30, "b": 90, "c": 30}


@pytest.mark.parametrize("step", [100, 300, 700])
def test_an_exchange_is_algorithm_1_of_the_paper(step):
    gradients = random_weights(5)
    network, weights = begun(create_method("rigl", sparsity=0.6), gradients)
    before = {name: mask.clone() for name, mask in network.masks.items()}
    values = {name: weight.clone() for name, weight in weights.items()}
    create_method("rigl", sparsity=0.6).after_backward(network, at(step))
    for name, mask in before.items():
        alive = [index for index in range(mask.numel()) if mask.flatten()[index]]
        count = min(round(0.3 / 2 * (1 + math.cos(math.pi * step / 750)) * len(alive)), mask.numel() - len(alive))
        kept = sorted(alive, key=lambda index: abs(float(values[name].flatten()[index])))[count:]
        others = [index for index in range(mask.numel()) if index not in kept]
        grown = sorted(others, key=lambda index: -abs(float(gradients[name].flatten()[index])))[:count]
        assert network.masks[name].flatten().nonzero().flatten().tolist() == sorted(kept + grown)


def test_the_sparsity_of_every_parameter_never_changes():
    method = create_method("rigl", sparsity=0.6, interval=10)
    gradients: dict[str, torch.Tensor] = {}
    network, weights = begun(method, gradients)
    first = zeros(network.masks)
    seen = [dict(network.masks)]
    for step in range(1, 101):
        gradients.update(random_weights(step))
        for name, weight in weights.items():
            weight.add_(random_weights(1000 + step)[name]).mul_(network.masks[name])
        method.after_backward(network, at(step, 100))
        assert zeros(network.masks) == first
        seen.append(dict(network.masks))
    changes = [step for step in range(1, 101) if not same(seen[step], seen[step - 1])]
    assert changes and all(step % 10 == 0 and step < 75 for step in changes)


def test_grown_weights_start_at_zero():
    network, weights = begun(create_method("rigl", sparsity=0.8))
    before = dict(network.masks)
    create_method("rigl", sparsity=0.8).after_backward(network, at(100))
    grown = {name: mask & ~before[name] for name, mask in network.masks.items()}
    assert sum(int(mask.sum()) for mask in grown.values()) > 0
    assert all((weights[name][mask] == 0).all() for name, mask in grown.items())


def test_it_trains_from_scratch_as_long_as_the_control():
    method = create_method("rigl", sparsity=0.8)
    (stage,) = method.stages(Budget(epochs=12, finetune_epochs=4))
    assert (stage.epochs, stage.start, stage.method) == (16, "scratch", method)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"sparsity": 1.0}, r"sparsity must be in \[0, 1\)"),
        ({"sparsity": 0.5, "drop_fraction": 1.5}, "drop_fraction must be in"),
        ({"sparsity": 0.5, "interval": 0}, "interval must be at least 1 step"),
        ({"sparsity": 0.5, "end_fraction": 2.0}, r"end_fraction must be in \[0, 1\], got 2"),
    ],
)
def test_impossible_knobs_are_refused(knobs, message):
    with pytest.raises(ValueError, match=message):
        create_method("rigl", **knobs)
