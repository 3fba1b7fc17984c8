import math

import pytest

from jobs.experiment.specs import RecipeSpec
from jobs.train.lr_schedule import Schedule, schedule


def test_the_rate_rises_linearly_then_falls_as_half_a_cosine():
    rates = Schedule(peak=1.0, floor=0.2, warmup=4, steps=12)
    assert [rates.lr(step) for step in range(4)] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates.lr(4) == pytest.approx(1.0)
    assert rates.lr(8) == pytest.approx(0.6)  # half-way down: the mean of both ends
    assert rates.lr(6) == pytest.approx(0.2 + 0.8 * (1 + math.cos(math.pi / 4)) / 2)
    assert rates.lr(12) == pytest.approx(0.2)


def test_it_agrees_with_torchs_own_cosine_after_the_warmup():
    import torch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.7)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=9, eta_min=0.1)
    rates = Schedule(peak=0.7, floor=0.1, warmup=3, steps=12)
    for step in range(3, 12):
        assert rates.lr(step) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        cosine.step()


def test_warmup_counts_fractions_of_an_epoch_in_steps():
    assert schedule(RecipeSpec(warmup_epochs=0.5), "train", steps=100, steps_per_epoch=11).warmup == 6
    assert schedule(RecipeSpec(warmup_epochs=0.0), "train", steps=100, steps_per_epoch=11).lr(0) == RecipeSpec().lr


def test_a_stage_shorter_than_its_warmup_only_warms_up():
    rates = schedule(RecipeSpec(warmup_epochs=5, lr=1.0), "train", steps=10, steps_per_epoch=10)
    assert [rates.lr(0), rates.lr(9)] == pytest.approx([0.1, 1.0])


def test_finetuning_starts_at_a_tenth_of_the_rate_unless_told_otherwise():
    assert schedule(RecipeSpec(lr=0.5), "finetune", steps=10, steps_per_epoch=5).lr(0) == pytest.approx(0.05)
    assert schedule(RecipeSpec(lr=0.5, finetune_lr=0.3), "finetune", steps=10, steps_per_epoch=5).lr(0) == pytest.approx(0.3)


def test_the_floor_is_never_above_the_peak():
    rates = schedule(RecipeSpec(lr=1e-4, min_lr=1e-3), "train", steps=10, steps_per_epoch=5)
    assert max(rates.lr(step) for step in range(10)) == pytest.approx(1e-4)
