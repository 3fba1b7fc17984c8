"""Terms of the loss that hold a network to a teacher: another network (Hinton et al., arXiv 1503.02531), or its own average over the training (MESA,
Du et al., arXiv 2205.14083).
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.experiment.specs import Distillation, RecipeSpec
from jobs.parallel.bf16 import keep_statistics_in_fp32
from jobs.parallel.engine import DTYPES, Term

MESA_TEMPERATURE, MESA_SCALE = 3.0, 50.0  # of MambaVision's term (train.py, commit 7860a50)


def kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """The Kullback-Leibler divergence of the student from the teacher, both softened: sum over classes, mean over images. Logits (b, classes)."""
    softened = functional.softmax(teacher / temperature, dim=1)
    return functional.kl_div(functional.log_softmax(student / temperature, dim=1), softened, reduction="batchmean")


def mesa_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """MambaVision's term: 50 times the divergence at temperature 3."""
    return MESA_SCALE * kl(student, teacher, MESA_TEMPERATURE)


def mesa_cross_entropy(student: Tensor, teacher: Tensor) -> Tensor:
    """The term of Spatial-Mamba (main.py, commit 71221eb): the cross-entropy with the teacher's probabilities as soft targets."""
    return functional.cross_entropy(student, functional.softmax(teacher, dim=1))


MESA_LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"kl": mesa_kl, "cross_entropy": mesa_cross_entropy}


def mesa_counts(recipe: RecipeSpec, epoch: int, epochs: int, *, cooldown: int) -> bool:
    """True if the term counts in an epoch, counted from 0, of a stage of so many: once `mesa_start` of the epochs before the cool-down has passed."""
    return recipe.mesa > 0 and epoch > recipe.mesa_start * (epochs - cooldown)


class FrozenNetwork:
    """A network in evaluation mode, in the dtype of the training, that gives logits and no gradient."""

    def __init__(self, network: nn.Module, recipe: RecipeSpec) -> None:
        """Takes `network` over."""
        self.network = network.eval().requires_grad_(False)
        if recipe.dtype == "bf16":
            keep_statistics_in_fp32(self.network)
        for parameter in self.network.parameters():
            parameter.data = parameter.data.to(DTYPES[recipe.dtype])

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """(b, classes) fp32 from images in the dtype of the training."""
        logits: Tensor = self.network(images)
        return logits.float()

    @torch.no_grad()
    def take(self, weights: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> None:
        """Takes weights and buffers by name."""
        for name, weight in weights.items():
            self.network.get_parameter(name).copy_(weight)
        for name, buffer in buffers.items():
            self.network.get_buffer(name).copy_(buffer)


def distilled(distill: Distillation, teacher: FrozenNetwork) -> Term:
    """The term of a recipe's distillation: (1 - weight) * loss + weight * T^2 * divergence at temperature T. T^2 keeps the size of its gradients."""

    def term(images: Tensor, logits: Tensor, loss: Tensor) -> Tensor:
        divergence = kl(logits, teacher.logits(images), distill.temperature)
        return (1 - distill.weight) * loss + distill.weight * distill.temperature**2 * divergence

    return term
