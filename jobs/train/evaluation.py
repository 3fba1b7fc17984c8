"""Accuracy of a whole fp32 network, and the function that loads a saved one."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.experiment.run_folder import MASKS
from jobs.experiment.specs import ModelSpec
from jobs.parallel.engine import Ranks
from jobs.train.removal import load_structure

TOP = 5


class WeightsError(ValueError):
    """A saved file does not fit the network that it is loaded into."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Results on one split, each sample counted once."""

    top1: float  # percent
    top5: float | None  # percent; None with fewer than 6 classes
    loss: float  # mean cross-entropy, nats, no label smoothing
    samples: int


@torch.no_grad()
def evaluate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], ranks: Ranks) -> Scores:
    """Scores of `model` in evaluation mode, counts summed over ranks; a collective. Batches: images (b, 3, H, W) float32, labels (b,) int64.

    Raises ValueError where no rank had a sample.
    """
    model.eval()
    counts = torch.zeros(3, dtype=torch.float64, device=ranks.device)  # top-1, top-5, sum of losses: read once, so that the device never waits
    seen = wide = 0  # samples, and those with more than 5 classes
    for images, labels in batches:
        logits, labels = model(images.to(ranks.device)).float(), labels.to(ranks.device)
        hits = logits.topk(min(TOP, logits.shape[1])).indices == labels[:, None]
        loss = functional.cross_entropy(logits, labels, reduction="sum")
        counts += torch.stack((hits[:, 0].sum(), hits.sum(), loss.double()))
        seen, wide = seen + len(labels), wide + len(labels) * (logits.shape[1] > TOP)
    numbers = torch.tensor([seen, wide], dtype=torch.float64, device=ranks.device)
    top1, top5, loss_sum, samples, wide = ranks.sum(torch.cat((counts, numbers))).tolist()
    if not samples:
        raise ValueError("nothing to evaluate: the split has no samples")
    return Scores(top1=100 * top1 / samples, top5=100 * top5 / samples if wide else None, loss=loss_sum / samples, samples=int(samples))


def load_model(model: ModelSpec, *, classes: int, img_size: int, scan: str, weights: Path) -> nn.Module:
    """The network of a saved safetensors file, in evaluation mode on the CPU; smaller, or with merging tokens, if the structure.json
    beside it says so.

    WeightsError names the file and what does not fit.
    """
    from safetensors.torch import load_file

    from models.pruning.structure import restructure
    from models.registry import create_model

    network = create_model(model.name, classes, img_size, scan_backend=scan, **model.architecture)
    structure = load_structure(weights.parent)
    try:
        if structure is not None:
            restructure(network, structure, img_size)
        network.load_state_dict(load_file(weights), strict=True)
    except (RuntimeError, ValueError) as error:
        raise WeightsError(f"{weights} does not hold the weights of {model.label}: {error}") from error
    return network.eval()


def classes_of(model: ModelSpec, img_size: int, weights: Path) -> int:
    """The classes of a saved network: the length of the parameter that grows with their number. WeightsError where the file lacks it."""
    from safetensors import SafetensorError, safe_open

    from models.registry import create_model

    with torch.device("meta"):
        two, three = (dict(create_model(model.name, count, img_size, **model.architecture).named_parameters()) for count in (2, 3))
    head = next(name for name, parameter in two.items() if parameter.shape != three[name].shape)
    try:
        with safe_open(weights, "pt") as file:
            return int(file.get_slice(head).get_shape()[0])
    except SafetensorError as error:
        raise WeightsError(f"{weights} does not hold the weights of {model.label}: {error}") from error


def load_masks(folder: Path) -> dict[str, Tensor]:
    """The masks beside a saved network, bool, True where a weight lives; empty if it is dense."""
    from safetensors.torch import load_file

    path = folder / MASKS
    return {name: mask.bool() for name, mask in load_file(path).items()} if path.exists() else {}
