"""Training losses against timm's own."""

from typing import Any

import pytest
import torch
from torch.nn import functional

from jobs.experiment.specs import RecipeSpec
from jobs.parallel.losses import training_loss
from models.torchvision_shim import load_timm

load_timm()
from timm import loss as timms  # noqa: E402

LOGITS = torch.randn(12, 7, generator=torch.Generator().manual_seed(0)).double() * 3
CLASSES = torch.arange(12) % 7
SOFT = torch.randn(12, 7, generator=torch.Generator().manual_seed(1)).double().mul(2).softmax(1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_classes_are_smoothed_as_timm_does_and_soft_targets_are_taken_as_they_are(smoothing: float) -> None:
    loss = training_loss(RecipeSpec(label_smoothing=smoothing))
    torch.testing.assert_close(loss(LOGITS, CLASSES), timms.LabelSmoothingCrossEntropy(smoothing)(LOGITS, CLASSES))
    torch.testing.assert_close(loss(LOGITS, SOFT), timms.SoftTargetCrossEntropy()(LOGITS, SOFT))


@pytest.mark.parametrize("summed", [False, True])
@pytest.mark.parametrize("threshold", [None, 0.0, 0.2])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("targets", [CLASSES, SOFT], ids=["classes", "soft"])
def test_a_binary_cross_entropy_is_timms(targets: torch.Tensor, smoothing: float, threshold: float | None, summed: bool) -> None:
    options: dict[str, Any] = {"sum_classes": True, "reduction": "none"} if summed else {}
    expected = timms.BinaryCrossEntropy(smoothing=smoothing, target_threshold=threshold, **options)(LOGITS, targets)
    loss = training_loss(RecipeSpec(loss="bce", label_smoothing=smoothing, bce_threshold=threshold, bce_sum=summed))
    torch.testing.assert_close(loss(LOGITS, targets), expected)


def test_soft_targets_of_one_class_are_that_class() -> None:
    hot = functional.one_hot(CLASSES, 7).double()
    for recipe in (RecipeSpec(label_smoothing=0.0), RecipeSpec(label_smoothing=0.0, loss="bce")):
        torch.testing.assert_close(training_loss(recipe)(LOGITS, hot), training_loss(recipe)(LOGITS, CLASSES))
