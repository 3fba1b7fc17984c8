"""A network's twin without memory: the meta device runs its shapes and its graph, and computes nothing."""

import copy
from typing import Any

from torch import nn


def meta_twin(network: nn.Module) -> Any:
    """A copy of the network on the meta device, in evaluation mode, whose parameters ask for gradients. Its weights are never copied."""
    without_memory: dict[int, Any] = {id(buffer): buffer.detach().to("meta") for buffer in network.buffers()}
    without_memory |= {id(weight): nn.Parameter(weight.detach().to("meta")) for weight in network.parameters()}
    return copy.deepcopy(network, without_memory).eval()
