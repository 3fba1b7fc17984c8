import math

import pytest
import torch

from models.pruning.base import Budget, Progress
from models.pruning.registry import create_method
from tests.support.network_views import fake_network, lowest_dropped, random_weights, same, train_steps


def zeros(masks: dict[str, torch.Tensor]) -> int:
    return sum(int((~mask).sum()) for mask in masks.values())


def test_it_trains_from_scratch_in_one_stage_as_long_as_the_control():
    method = create_method("dynamic", sparsity=0.9)
    (stage,) = method.stages(Budget(epochs=12, finetune_epochs=4))
    assert (stage.epochs, stage.start, stage.schedule, stage.method) == (16, "scratch", "train", method)


def test_without_an_epoch_there_is_no_step_to_prune_at():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        create_method("dynamic", sparsity=0.9).stages(Budget(epochs=0, finetune_epochs=0))


@pytest.mark.parametrize("schedule", ["cosine", "cubic"])
def test_the_sparsity_after_every_step_is_the_schedules(schedule):
    weights = random_weights()
    method = create_method("dynamic", sparsity=0.9, initial_sparsity=0.1, schedule=schedule, begin_fraction=0.1, end_fraction=0.8, interval=7)
    history = train_steps(method, fake_network(weights), weights, 100)
    for step, masks in enumerate(history, start=1):
        drawn = 80 if step >= 80 else 10 + (step - 10) // 7 * 7
        p = (drawn - 10) / 70
        rise = (1 - math.cos(math.pi * p)) / 2 if schedule == "cosine" else 1 - (1 - p) ** 3
        assert zeros(masks) == (round(200 * (0.1 + 0.8 * rise)) if step >= 10 else 0)


def test_weights_that_are_gone_never_come_back():
    weights = random_weights()
    history = train_steps(create_method("dynamic", sparsity=0.95, interval=3), fake_network(weights), weights, 60)
    for previous, following in zip(history, history[1:], strict=False):
        assert all(not (following[name] & ~mask).any() for name, mask in previous.items())


def test_each_mask_drops_the_smallest_of_the_weights_that_are_left():
    weights = random_weights(values=4)
    network = fake_network(weights)
    method = create_method("dynamic", sparsity=0.8, begin_fraction=0.0, end_fraction=1.0, interval=5, initial_sparsity=0.2)
    method.after_step(network, Progress(step=1, steps=10, steps_per_epoch=10))
    for name, weight in weights.items():
        weight.copy_(random_weights(9, values=4)[name] * network.masks[name])
    scores = {name: weight.abs() - 1000.0 * ~network.masks[name] for name, weight in weights.items()}
    method.after_step(network, Progress(step=10, steps=10, steps_per_epoch=10))
    assert same(network.masks, lowest_dropped(scores, 160))


@pytest.mark.parametrize("steps", [1, 2, 3, 17, 100])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_the_final_sparsity_is_reached_exactly_however_short_the_stage(steps, scope):
    weights = random_weights()
    history = train_steps(create_method("dynamic", sparsity=0.9, scope=scope), fake_network(weights), weights, steps)
    assert zeros(history[-1]) == 180


def test_with_regrow_each_mask_is_chosen_anew_from_the_dense_weights_to_the_end():
    """Algorithm 1 of arXiv 2006.07253 by brute force: the weights that the network reads stay dense."""
    weights, history = random_weights(), []
    network = fake_network(weights)
    network.apply = lambda masks: None
    method = create_method("dynamic", sparsity=0.8, regrow=True, begin_fraction=0.1, end_fraction=0.5, interval=5, schedule="cubic")
    assert method.keeps_dense and not create_method("dynamic", sparsity=0.8).keeps_dense
    generator = torch.Generator().manual_seed(3)
    for step in range(1, 41):
        for weight in weights.values():
            weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
        before = network.masks
        method.after_step(network, Progress(step=step, steps=40, steps_per_epoch=10))
        drawn = step in (4, 9, 14, 19, 20, 25, 30, 35, 40)
        assert (network.masks is not before) == drawn, step
        if drawn:
            share = 0.8 if step >= 20 else 0.8 - 0.8 * (1 - (step - 4) / 16) ** 3
            assert same(network.masks, lowest_dropped({name: weight.abs() for name, weight in weights.items()}, round(200 * share)))
        history.append(network.masks)
    assert any(
        (following[name] & ~mask).any() for previous, following in zip(history[20:], history[21:], strict=False) for name, mask in previous.items()
    )


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"initial_sparsity": 0.95}, "initial_sparsity must be at most sparsity, 0.9, got 0.95"),
        ({"initial_sparsity": -0.5}, "initial_sparsity must be in"),
        ({"begin_fraction": 0.8, "end_fraction": 0.5}, "0 <= begin_fraction < end_fraction <= 1 must hold, got 0.8 and 0.5"),
        ({"end_fraction": 1.5}, "end_fraction <= 1 must hold"),
        ({"interval": 0}, "interval must be at least 1 step, got 0"),
    ],
)
def test_knobs_that_make_no_schedule_are_refused(knobs, message):
    with pytest.raises(ValueError, match=message):
        create_method("dynamic", sparsity=0.9, **knobs)
