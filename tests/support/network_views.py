"""A NetworkView without an engine: plain tensors, masks applied at once."""

from collections.abc import Mapping

import torch
from torch import Tensor

from models.pruning.base import NetworkView, Progress, PruningMethod


def fake_network(
    weights: dict[str, Tensor], gradients: dict[str, Tensor] | None = None, seed: int = 0, norms: dict[str, Tensor] | None = None
) -> NetworkView:
    """A network over these tensors, which `apply` zeroes in place. `gradients` may be changed by the test between the hooks."""

    def apply(masks: Mapping[str, Tensor]) -> None:
        for name, mask in masks.items():
            weights[name].mul_(mask)

    return NetworkView(
        names=tuple(weights),
        seed=seed,
        read_weight=lambda name: weights[name].clone(),
        read_gradient=lambda name: (gradients or {})[name].clone(),
        input_norms=lambda batches: norms or {},
        apply=apply,
    )


def random_weights(seed: int = 0, *, values: int | None = None) -> dict[str, Tensor]:
    """Three tensors of 1, 2 and 3 dimensions; with `values`, whole numbers below it in absolute value, so that there are ties."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"a": (40,), "b": (6, 20), "c": (4, 1, 10)}
    if values:
        return {name: torch.randint(1 - values, values, shape, generator=generator).float() for name, shape in shapes.items()}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def train_steps(method: PruningMethod, network: NetworkView, weights: dict[str, Tensor], steps: int, *, seed: int = 1) -> list[dict[str, Tensor]]:
    """The masks after each of `steps` steps, in which the living weights move at random."""
    generator = torch.Generator().manual_seed(seed)
    history = []
    for step in range(1, steps + 1):
        for name, weight in weights.items():
            weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
            if network.masks:
                weight.mul_(network.masks[name])
        method.after_step(network, Progress(step=step, steps=steps, steps_per_epoch=10))
        history.append(dict(network.masks))
    return history


def lowest_dropped(scores: dict[str, Tensor], zeros: int) -> dict[str, Tensor]:
    """Masks by brute force: all scores in one list, sorted stably, the first `zeros` dropped."""
    positions = [(name, index) for name, score in scores.items() for index in range(score.numel())]
    values = [float(value) for score in scores.values() for value in score.flatten()]
    gone = {positions[at] for at in sorted(range(len(values)), key=lambda at: values[at])[:zeros]}
    return {
        name: torch.tensor([(name, index) not in gone for index in range(score.numel())], dtype=torch.bool).view(score.shape)
        for name, score in scores.items()
    }


def same(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> bool:
    """Whether two sets of masks are equal, names and order included."""
    return list(left) == list(right) and all(torch.equal(left[name], right[name]) for name in left)
