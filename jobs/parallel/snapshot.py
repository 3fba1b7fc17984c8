"""A whole fp32 copy of the network in training: what validation runs and what an export holds, whatever the sharding and dtype of the training."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from jobs.parallel.engine import Ranks


class Snapshot:
    """`model`, in fp32 on the rank's device; the same on every rank."""

    def __init__(self, model: nn.Module, ranks: Ranks) -> None:
        """Holds the initial weights until `load` or `take`."""
        self.model, self.ranks = model.to(ranks.device), ranks

    def weights(self) -> dict[str, Tensor]:
        """The trained parameters, by name."""
        return {name: parameter.data for name, parameter in self.model.named_parameters() if parameter.requires_grad}

    def load(self, path: Path) -> None:
        """Takes the weights of an exported file. RuntimeError where names or shapes differ."""
        from safetensors.torch import load_file

        self.model.load_state_dict(load_file(path), strict=True)

    @torch.no_grad()
    def take(self, weights: Mapping[str, Tensor], module: nn.Module) -> None:
        """Takes whole weights, and the buffers of the module in training, averaged over ranks; a collective."""
        for name, parameter in self.weights().items():
            parameter.copy_(weights[name])
        theirs = averaged_buffers(module, self.ranks)
        for name, buffer in self.model.named_buffers():
            buffer.copy_(theirs[name])

    def copy_buffers_to(self, module: nn.Module) -> None:
        """Sets the buffers of the module in training."""
        mine = dict(self.model.named_buffers())
        for name, buffer in module.named_buffers():
            buffer.copy_(mine[name])


def averaged_buffers(module: nn.Module, ranks: Ranks) -> dict[str, Tensor]:
    """Means over ranks of the floating-point buffers (BatchNorm's statistics, of which each rank sees its own), rank's own others; a collective."""
    means = {}
    for name, buffer in module.named_buffers():
        floating = buffer.is_floating_point() and ranks.world > 1
        means[name] = (ranks.sum(buffer.to(torch.float32, copy=True)) / ranks.world).to(buffer.dtype) if floating else buffer
    return means


@torch.no_grad()
def average_buffers(module: nn.Module, ranks: Ranks) -> None:
    """Gives every rank the mean statistics; a collective."""
    for name, mean in averaged_buffers(module, ranks).items():
        module.get_buffer(name).copy_(mean)
