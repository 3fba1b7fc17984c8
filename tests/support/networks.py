"""A network, batches and methods small enough that a test trains in milliseconds."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.experiment.specs import DataSpec, ModelSpec, RecipeSpec, StageSpec
from jobs.parallel.engine import Ranks
from models.pruning.base import NetworkView, Progress, PruningMethod, Stage

CLASSES, SIZE = 7, 4


class ToyNet(nn.Module):
    """Conv, optional BatchNorm, two linear layers. No parameter's size is a multiple of 2 but one, so that ranks hold unequal parts."""

    def __init__(self, *, norm: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, padding=1)
        self.norm = nn.BatchNorm2d(5) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(5 * SIZE * SIZE, 9)
        self.head = nn.Linear(9, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """(B, CLASSES) from (B, 3, SIZE, SIZE)."""
        x = self.dropout(torch.relu(self.norm(self.conv(x)))).flatten(1)
        return self.head(torch.relu(self.fc(x)))


def toy_net(seed: int = 0, **options: Any) -> ToyNet:
    """The network whose weights are a function of `seed`."""
    torch.manual_seed(seed)
    return ToyNet(**options)


NO_DECAY = [name for name, parameter in ToyNet(norm=True).named_parameters() if parameter.dim() < 2]


class Patches(nn.Module):
    """(B, 16, 12) from (B, 3, 8, 8): a body gets tokens of width 12."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, images: Tensor) -> Tensor:
        """What the body gives."""
        return self.body(functional.pixel_unshuffle(images, 2).flatten(2).transpose(1, 2))


class Calls(nn.Module):
    """Any function of (B, 16, 12) tokens."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, tokens: Tensor) -> Tensor:
        """What the function gives."""
        return self.function(tokens)


def global_batch(number: int, samples: int) -> tuple[Tensor, Tensor]:
    """Images and labels that depend on `number` alone; the label can be learnt from the image."""
    generator = torch.Generator().manual_seed(number)
    labels = torch.randint(0, CLASSES, (samples,), generator=generator)
    images = torch.randn(samples, 3, SIZE, SIZE, generator=generator)
    images[:, 0, 0, :] += labels[:, None] - CLASSES / 2
    return images, labels


@dataclass
class ToyBatches:
    """Stands for a TrainLoader: the same global batches whatever the ranks and micro-batches. `poison`: (step of epoch 0, rank) that gets NaN."""

    batch: int
    micro: int
    ranks: Ranks
    steps_per_epoch: int = 4
    poison: tuple[int, int] | None = None

    def epoch(self, epoch: int, first_step: int = 0) -> Generator[tuple[Tensor, Tensor]]:
        """This rank's micro-batches."""
        for step in range(first_step, self.steps_per_epoch):
            images, labels = global_batch(1000 * epoch + step, self.batch)
            if (step, self.ranks.rank) == self.poison and epoch == 0:
                images = images * float("nan")
            yield from list(zip(images.split(self.micro), labels.split(self.micro), strict=True))[self.ranks.rank :: self.ranks.world]


@dataclass
class ToySamples:
    """Stands for an EvalLoader of 30 samples."""

    ranks: Ranks

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """This rank's share, in two batches."""
        images, labels = (tensor[self.ranks.rank :: self.ranks.world] for tensor in global_batch(999_999, 30))
        yield from zip(images.split(10), labels.split(10), strict=True)


@dataclass(frozen=True, kw_only=True)
class Halve(PruningMethod):
    """Drops half of every weight at the start, moves the mask at step `move`, and counts its calls in its state."""

    name: ClassVar[str] = "halve"
    groups: tuple[str, ...] = ("other", "conv", "head", "mlp")
    move: int = 3

    def begin(self, network: NetworkView) -> None:
        network.state["calls"] = torch.zeros(1)
        network.set_masks(half_masks(network, 0))

    def after_step(self, network: NetworkView, progress: Progress) -> None:
        network.state["calls"] += 1
        if progress.step == self.move:
            network.set_masks(half_masks(network, 1))


def half_masks(network: NetworkView, parity: int) -> dict[str, Tensor]:
    """Masks that keep every other weight."""
    return {name: (torch.arange(weight.numel()) % 2 == parity).view(weight.shape) for name, weight in network.weights().items()}


def toy_spec(stage: Stage, *, seed: int = 0, **recipe: Any) -> StageSpec:
    """A stage of the toy network: 16 images a step unless `recipe` says otherwise."""
    model = ModelSpec(name="toy", label="toy")
    return StageSpec(id="0", model=model, data=DataSpec(), recipe=RecipeSpec(**{"batch_size": 16, "lr": 1e-2} | recipe), seed=seed, stage=stage)
