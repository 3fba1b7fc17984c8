"""A network that is not ours is tried before anything is queued: a mistake in a plug-in's forward pass, or an operation of timm's that nobody counts,
would else end every one of its jobs."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from models.plugins.modules import line_in_plugin

if TYPE_CHECKING:
    from torch import nn

CLASSES, IMAGES = 10, 2
MOST_PARAMETERS = 500_000_000  # of a network that a login node builds to count its operations


def check_forward(name: str, options: Mapping[str, Any], img_size: int) -> None:
    """Raises ValueError if a network does not turn images into scores. It is tried without memory first; where that fails, in earnest, since some
    operations need real numbers.
    """
    import torch

    try:
        with torch.device("meta"):
            scores = scores_of(network(name, options, img_size), img_size)
    except Exception:  # of the user's code, or of an operation that has no form without memory
        try:
            scores = scores_of(network(name, options, img_size), img_size)
        except Exception as error:
            where = f" (in {line})" if (line := line_in_plugin(error)) else ""
            message = " ".join(str(error).split()) or "no message"
            raise ValueError(f"its forward pass fails: {type(error).__name__}: {message}{where}") from None
    expected = f"expected scores of shape ({IMAGES}, {CLASSES}) for {IMAGES} images and {CLASSES} classes"
    if not isinstance(scores, torch.Tensor):
        raise ValueError(f"its forward pass gives a value of type {type(scores).__name__}: {expected}")
    if scores.shape != (IMAGES, CLASSES):
        raise ValueError(f"its forward pass gives a tensor of shape {tuple(scores.shape)}: {expected}")


def check_counts(name: str, options: Mapping[str, Any], img_size: int) -> None:
    """Raises ValueError if the multiply-adds of a network cannot be counted, which would fail each of its cells after its training."""
    from jobs.measure.multiply_adds import count_multiply_adds

    model = network(name, options, img_size)
    try:
        count_multiply_adds(model, img_size=img_size, masks={})
    except Exception as error:
        where = f" (in {line})" if (line := line_in_plugin(error)) else ""
        message = " ".join(str(error).split()) or "no message"
        raise ValueError(f"its multiply-adds cannot be counted: {message}{where}") from None


def network(name: str, options: Mapping[str, Any], img_size: int) -> "nn.Module":
    """The network in evaluation mode, with the scan that every machine has."""
    from models.registry import create_model

    return create_model(name, CLASSES, img_size, scan_backend="reference", **options).eval()


def scores_of(model: "nn.Module", img_size: int) -> object:
    """What a network gives for black images."""
    import torch

    with torch.no_grad():
        return model(torch.zeros(IMAGES, 3, img_size, img_size))
