from dataclasses import replace

import pytest
import torch

from models.pruning.base import Budget
from models.pruning.registry import create_method
from tests.support.network_views import fake_network, lowest_dropped, random_weights, same

BUDGET = Budget(epochs=12, finetune_epochs=4)


def chain(method_knobs: dict, rounds: int) -> list[dict[str, torch.Tensor]]:
    """The masks of each round, the weights trained anew (here: drawn) in between."""
    method, masks, history = create_method("iterative_magnitude", **method_knobs), {}, []
    for number in range(rounds):
        weights = random_weights(number)
        for name, mask in masks.items():
            weights[name].mul_(mask)
        network = fake_network(weights)
        network.masks = masks
        (stage,) = [stage for stage in method.stages(BUDGET) if stage.name == f"prune_{number + 1}"]
        stage.method.begin(network)
        masks = dict(network.masks)
        history.append(masks)
    return history


def test_every_round_drops_a_fifth_of_what_is_left():
    left = [sum(int(mask.sum()) for mask in masks.values()) for masks in chain({"rounds": 4}, 4)]
    assert left == [160, 128, 102, 82]  # 200, less round(left / 5) each time


def test_the_masks_of_the_rounds_are_nested():
    history = chain({"rounds": 4, "rate": 0.5}, 4)
    for previous, following in zip(history, history[1:], strict=False):
        assert all(not (following[name] & ~mask).any() for name, mask in previous.items())


def test_a_round_drops_the_smallest_of_the_weights_that_are_left_over_the_whole_network():
    first, second = chain({"rounds": 2, "rate": 0.3}, 2)
    assert same(first, lowest_dropped({name: weight.abs() for name, weight in random_weights(0).items()}, 60))
    scores = {name: torch.where(first[name], weight.abs(), -1.0) for name, weight in random_weights(1).items()}
    assert same(second, lowest_dropped(scores, 60 + 42))


def test_each_round_draws_its_mask_and_then_trains_from_the_rewind_step():
    stages = create_method("iterative_magnitude", rounds=2, rewind_step=100).stages(BUDGET)
    assert [(stage.name, stage.epochs, stage.start, stage.method is None) for stage in stages] == [
        ("train", 12, "scratch", True),
        ("prune_1", 0, "parent", False),
        ("round_1", 12, "rewind", True),
        ("prune_2", 0, "parent", False),
        ("round_2", 12, "rewind", True),
    ]
    assert stages[0].keep_steps == (100,) and stages[2].rewind_step == stages[4].rewind_step == 100
    assert replace(stages[0], keep_steps=()) == create_method("dense").stages(BUDGET)[0]
    assert {stage.schedule for stage in stages if stage.epochs} == {"train"}


def test_without_rewinding_the_weights_the_schedule_alone_or_nothing_is_rewound():
    rate = create_method("iterative_magnitude", rounds=1, rewind="learning_rate").stages(BUDGET)
    none = create_method("iterative_magnitude", rounds=1, rewind="none").stages(BUDGET)
    assert (rate[2].start, rate[2].schedule, rate[2].epochs) == ("parent", "train", 12)
    assert (none[2].start, none[2].schedule, none[2].epochs) == ("parent", "finetune", 4)
    assert rate[0] == none[0] == create_method("dense").stages(BUDGET)[0]


def test_a_cell_of_more_rounds_shares_all_stages_of_one_of_fewer():
    few, many = (create_method("iterative_magnitude", rounds=rounds).stages(BUDGET) for rounds in (2, 5))
    assert many[: len(few)] == few


def test_the_sparsity_after_all_rounds_is_known_beforehand():
    assert create_method("iterative_magnitude", rounds=10).sparsity == pytest.approx(0.8926, abs=1e-4)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"rounds": 0}, "rounds must be at least 1, got 0"),
        ({"rounds": 1, "rate": 0.0}, r"rate must be in \(0, 1\), got 0"),
        ({"rounds": 1, "rewind_step": -1}, "rewind_step must be at least 0"),
        ({"rounds": 1, "rewind": "none", "rewind_step": 5}, "0 unless rewind is weights, got 5 with rewind: none"),
        ({}, "iterative_magnitude needs rounds"),
    ],
)
def test_impossible_knobs_are_refused(knobs, message):
    with pytest.raises(ValueError, match=message):
        create_method("iterative_magnitude", **knobs)


@pytest.mark.parametrize(("rewind", "spent"), [("weights", "epochs"), ("learning_rate", "epochs"), ("none", "finetune_epochs")])
def test_rounds_without_an_epoch_are_refused(rewind, spent):
    budget = replace(Budget(epochs=2, finetune_epochs=2), **{spent: 0})
    with pytest.raises(ValueError, match=f"rewind: {rewind} trains for `{spent}` after every mask: it must be at least 1, got 0; magnitude"):
        create_method("iterative_magnitude", rounds=2, rewind=rewind).stages(budget)
