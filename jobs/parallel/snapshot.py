"""A whole fp32 copy of the network in training, for validation and export. Its values do not depend on the sharding of the training."""

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
        """Takes the weights of an exported file. Raises RuntimeError where names or shapes differ."""
        from safetensors.torch import load_file

        self.model.load_state_dict(load_file(path), strict=True)

    @torch.no_grad()
    def take(self, weights: Mapping[str, Tensor], module: nn.Module) -> None:
        """Takes whole weights, and the buffers of the module in training averaged over ranks; a collective."""
        for name, parameter in self.weights().items():
            parameter.copy_(weights[name])
        averages = averaged_buffers(module, self.ranks)
        for name, buffer in self.model.named_buffers():
            buffer.copy_(averages[name])

    def copy_buffers_to(self, module: nn.Module) -> None:
        """Sets the buffers of the module in training."""
        buffers = dict(self.model.named_buffers())
        for name, buffer in module.named_buffers():
            buffer.copy_(buffers[name])


def averaged_buffers(module: nn.Module, ranks: Ranks) -> dict[str, Tensor]:
    """Buffers by name, those of floating point averaged over ranks (each rank has BatchNorm statistics of its own); a collective."""
    return {name: mean_over_ranks(buffer, ranks) if buffer.is_floating_point() else buffer for name, buffer in module.named_buffers()}


def mean_over_ranks(tensor: Tensor, ranks: Ranks) -> Tensor:
    """The mean of every rank's `tensor` of floating point, in its dtype; itself with one rank. A collective."""
    return tensor if ranks.world == 1 else (ranks.sum(tensor.to(torch.float32, copy=True)) / ranks.world).to(tensor.dtype)


@torch.no_grad()
def average_buffers(module: nn.Module, ranks: Ranks) -> None:
    """Sets the floating-point buffers of every rank to their average over ranks; a collective."""
    for name, mean in averaged_buffers(module, ranks).items():
        module.get_buffer(name).copy_(mean)
