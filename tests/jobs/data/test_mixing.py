"""Mixing against timm's Mixup: weights, boxes, images and targets."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import beta as beta_distribution
from scipy.stats import ks_2samp, kstest

from jobs.data.mixing import MIX, beta, draw_mixes, mix_images, soft_targets
from jobs.experiment.specs import RecipeSpec
from models.torchvision_shim import load_timm

load_timm()
from timm.data import mixup as timm_mixup  # noqa: E402

DRAWS, SIZE = 10_000, 24


def drawn(count: int = DRAWS, epoch: int = 0, size: int = SIZE, **recipe: Any) -> np.ndarray:
    return draw_mixes(RecipeSpec(**recipe), np.arange(count), img_size=size, seed=5, epoch=epoch)


@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0, 4.0])
def test_weights_of_mixup_are_beta(alpha: float) -> None:
    weights = drawn(mixup=alpha)["weight"]
    assert kstest(weights, beta_distribution(alpha, alpha).cdf).pvalue > 1e-3
    assert np.allclose(beta(alpha, np.array([0.1, 0.5])), beta_distribution(alpha, alpha).ppf([0.1, 0.5]))


@pytest.mark.parametrize("mode", ["batch", "pair"])
def test_choices_weights_and_boxes_are_distributed_as_timms(mode: str) -> None:
    settings = {"mixup": 0.8, "cutmix": 1.0, "mixup_prob": 0.7, "mixup_switch_prob": 0.4}
    table = drawn(mixup_mode=mode, **settings)
    np.random.seed(0)
    theirs = timm_mixup.Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, prob=0.7, switch_prob=0.4)
    weights, cuts = theirs._params_per_elem(DRAWS)
    boxes = [timm_mixup.cutmix_bbox_and_lam((3, SIZE, SIZE), weight) for weight in weights[cuts & (weights != 1)]]
    mixed = table["weight"] != 1
    cut = table["cut"]
    assert abs(cut.sum() - len(boxes)) < 5 * np.sqrt(DRAWS * 0.28 * 2)
    assert abs((mixed & ~cut).sum() - (~cuts & (weights != 1)).sum()) < 5 * np.sqrt(DRAWS * 0.42 * 2)
    assert ks_2samp(table["weight"][mixed & ~cut], weights[~cuts & (weights != 1)]).pvalue > 1e-6
    assert ks_2samp(table["weight"][cut], [float(weight) for _, weight in boxes]).pvalue > 1e-6
    for index, name in enumerate(("top", "bottom", "left", "right")):
        assert ks_2samp(table[name][cut], [int(box[index]) for box, _ in boxes]).pvalue > 1e-6


@pytest.mark.parametrize("size", [24, 25, 32])
def test_a_box_is_timms_for_the_same_weight_and_centre(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    table = drawn(300, size=size, cutmix=1.0)
    from jobs.data.augment import uniform

    numbers = np.arange(300)
    weights = beta(1.0, uniform(5, 0, numbers, 8194))
    centres = [np.floor(uniform(5, 0, numbers, draw) * size).astype(int) for draw in (8195, 8196)]
    for number in range(300):
        given = iter([centres[0][number], centres[1][number]])
        monkeypatch.setattr(np.random, "randint", lambda low, high, size, given=given: next(given))
        (top, bottom, left, right), weight = timm_mixup.cutmix_bbox_and_lam((3, size, size), weights[number])
        assert table[number].tolist() == (weight, True, top, bottom, left, right)


def partners_as_timm_has_them(batch: torch.Tensor) -> torch.Tensor:
    """The batch in an order in which the first and the last image are neighbours of ours, and so on inwards."""
    return torch.cat([batch[0::2], batch[1::2].flip(0)])


def as_ours(batch: torch.Tensor) -> torch.Tensor:
    half = len(batch) // 2
    return torch.stack([batch[:half], batch[half:].flip(0)], dim=1).flatten(0, 1)


@pytest.mark.parametrize("mode", ["batch", "pair"])
@pytest.mark.parametrize("on_cpu", [True, False])
def test_images_and_targets_are_timms_to_the_bit(monkeypatch: pytest.MonkeyPatch, mode: str, on_cpu: bool) -> None:
    recipe = {"mixup": 0.8, "cutmix": 1.0, "mixup_prob": 0.9, "mixup_mode": mode}
    batch, classes = 8, 10
    for step in range(12):
        images = torch.randn(batch, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(step))
        labels = torch.randint(0, classes, (batch,), generator=torch.Generator().manual_seed(step))
        pairs = drawn(1, epoch=step, **recipe).repeat(batch // 2) if mode == "batch" else drawn(batch // 2, epoch=step, **recipe)
        theirs = timm_mixup.Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, mode=mode, label_smoothing=0.1, num_classes=classes)
        boxes = iter([tuple(int(pair[name]) for name in ("top", "bottom", "left", "right")) for pair in pairs if pair["cut"]])
        monkeypatch.setattr(theirs, "_params_per_batch", lambda pairs=pairs: (float(pairs[0]["weight"]), bool(pairs[0]["cut"])))
        monkeypatch.setattr(theirs, "_params_per_elem", lambda count, pairs=pairs: (pairs["weight"].astype(np.float32), pairs["cut"]))
        monkeypatch.setattr(timm_mixup, "rand_bbox", lambda *_, boxes=boxes, **__: next(boxes))
        expected, targets = theirs(partners_as_timm_has_them(images.clone()), partners_as_timm_has_them(labels))
        mixed = images.clone()
        if on_cpu:
            mix_images(mixed, pairs)
        else:  # the way of a GPU, which a CPU can go too
            monkeypatch.setattr(torch.Tensor, "device", type("Elsewhere", (), {"type": "other"})())
            mix_images(mixed, pairs)
            monkeypatch.undo()
        assert torch.equal(mixed, as_ours(expected))
        got = soft_targets(labels, pairs, classes, 0.1)
        assert torch.equal(got, as_ours(targets))
        assert torch.allclose(got.sum(1), torch.ones(batch))


def test_nothing_is_mixed_from_the_epoch_on_that_ends_mixing() -> None:
    recipe = {"mixup": 0.8, "cutmix": 1.0, "mixup_off_epoch": 2}
    assert (drawn(100, epoch=1, **recipe)["weight"] != 1).all()
    table = drawn(4, epoch=2, **recipe)
    images = torch.randn(8, 3, 4, 4)
    mixed = images.clone()
    mix_images(mixed, table)
    assert torch.equal(mixed, images) and not table["cut"].any()
    labels = torch.arange(8)
    assert torch.equal(soft_targets(labels, table, 10, 0.1), timm_mixup.mixup_target(labels, 10, 1.0, 0.1))


def test_a_weight_depends_on_its_own_number_alone() -> None:
    table = drawn(50, mixup=0.8, cutmix=1.0)
    some = draw_mixes(RecipeSpec(mixup=0.8, cutmix=1.0), np.array([40, 3]), img_size=SIZE, seed=5, epoch=0)
    assert (some == table[[40, 3]]).all() and (drawn(50, epoch=1, mixup=0.8, cutmix=1.0) != table).any()
    assert table.dtype == MIX and len(drawn(0, mixup=1.0)) == 0
