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


@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize("every", ["step", "epoch"])
@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize("cooldown", [0, 2])
def test_it_is_timms_schedule_at_every_step_and_epoch(prefix, every, warmup, cooldown):
    import torch

    from models.torchvision_shim import load_timm

    load_timm()
    from timm.scheduler.scheduler_factory import create_scheduler_v2

    epochs, per_epoch = 12, 7
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.7)
    cosine_epochs = epochs - cooldown - (warmup if prefix else 0)
    timms, total = create_scheduler_v2(
        optimizer,
        num_epochs=cosine_epochs,
        warmup_epochs=warmup,
        warmup_lr=0.01,
        warmup_prefix=prefix,
        cooldown_epochs=cooldown,
        min_lr=0.1,
        step_on_epochs=every == "epoch",
        updates_per_epoch=per_epoch,
    )
    assert total == epochs or every == "step"
    recipe = RecipeSpec(lr=0.7, min_lr=0.1, lr_every=every, warmup_epochs=warmup, warmup_lr=0.01, warmup_prefix=prefix, cooldown_epochs=cooldown)
    rates = schedule(recipe, "train", steps=epochs * per_epoch, steps_per_epoch=per_epoch)
    for epoch in range(epochs):
        for step in range(epoch * per_epoch, (epoch + 1) * per_epoch):
            assert rates.lr(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12), (epoch, step)
            timms.step_update(step + 1)
        timms.step(epoch + 1)
    assert cooldown == 0 or {rates.lr(step) for step in range((epochs - cooldown) * per_epoch, epochs * per_epoch)} == {0.1}


def test_by_epoch_every_step_of_an_epoch_has_one_rate_and_the_peak_is_never_passed():
    rates = schedule(RecipeSpec(lr_every="epoch", lr=1.0, warmup_epochs=1.5), "train", steps=20, steps_per_epoch=5)
    assert [len({rates.lr(step) for step in range(first, first + 5)}) for first in (0, 5, 10, 15)] == [1, 1, 1, 1]
    assert max(rates.lr(step) for step in range(20)) == 1.0


def test_a_stage_that_is_too_short_for_warmup_and_cooldown_has_no_cooldown():
    recipe = RecipeSpec(lr=1.0, warmup_epochs=1, cooldown_epochs=2)
    assert schedule(recipe, "train", steps=40, steps_per_epoch=10).lr(20) == recipe.min_lr
    short = schedule(recipe, "train", steps=30, steps_per_epoch=10)
    assert short == schedule(RecipeSpec(lr=1.0, warmup_epochs=1), "train", steps=30, steps_per_epoch=10)
    assert schedule(recipe, "finetune", steps=40, steps_per_epoch=10).lr(20) > recipe.min_lr
