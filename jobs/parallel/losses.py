"""The training loss of a recipe."""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from jobs.experiment.specs import RecipeSpec

Loss = Callable[[Tensor, Tensor], Tensor]  # logits (b, classes) fp32, targets -> scalar


def training_loss(recipe: RecipeSpec) -> Loss:
    """The loss of a micro-batch, a mean over its images.

    Targets are classes, (b,) int64, which the loss smoothes; or soft targets, (b, classes) float, in which smoothing is already.
    """
    if recipe.loss == "bce":
        return lambda logits, targets: binary_cross_entropy(logits, targets, recipe)
    return lambda logits, targets: cross_entropy(logits, targets, recipe.label_smoothing)


def cross_entropy(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """-sum over classes of target * log softmax(logits)."""
    return functional.cross_entropy(logits, targets, label_smoothing=0.0 if targets.is_floating_point() else smoothing)


def binary_cross_entropy(logits: Tensor, targets: Tensor, recipe: RecipeSpec) -> Tensor:
    """A binary cross-entropy for every class; over classes their mean, or their sum with `bce_sum`. As timm.loss.BinaryCrossEntropy."""
    if not targets.is_floating_point():
        off = recipe.label_smoothing / logits.shape[1]
        hot = functional.one_hot(targets, logits.shape[1]).to(logits.dtype)
        targets = hot * (1 - recipe.label_smoothing) + off
    if recipe.bce_threshold is not None:
        targets = targets.gt(recipe.bce_threshold).to(logits.dtype)
    loss = functional.binary_cross_entropy_with_logits(logits, targets)
    return loss * logits.shape[1] if recipe.bce_sum else loss
