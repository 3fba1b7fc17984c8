"""Exponential moving averages of the fp32 weights. Each rank keeps its own part."""

from typing import Literal

import torch
from torch import Tensor, nn

from jobs.parallel.fragments import Fragments
from jobs.parallel.masking import Masking
from jobs.parallel.snapshot import mean_over_ranks

Warmup = Literal["tf", "timm", "none"]


def decay_at(step: int, decay: float, warmup: Warmup) -> float:
    """The decay of the average after optimizer step `step`, counted from 1. While it grows, the initial weights leave the average soon.

    tf: at most (1 + step) / (10 + step), as TensorFlow's ExponentialMovingAverage. timm: at most 1 - step^(-2/3), the rule of timm's ModelEmaV3 with
    use_warmup. none: always `decay`, as timm's ModelEma and ModelEmaV2.
    """
    if warmup == "none":
        return decay
    return min(decay, (1 + step) / (10 + step) if warmup == "tf" else 1 - step ** (-2 / 3))


class Average:
    """Averaged weights, which are evaluated and saved instead of the current ones. Weights that a mask drops are zero in them too."""

    def __init__(self, decay: float, fragments: Fragments, masking: Masking, *, warmup: Warmup = "tf", buffers: bool = False) -> None:
        """Starts with the current weights. `buffers`: averages the floating-point buffers of this rank's network too."""
        self.decay, self.fragments, self.masking, self.warmup = decay, fragments, masking, warmup
        self.flats = [flat.clone() for flat in fragments.flats()]
        self.parts: dict[str, Tensor] = fragments.parts(self.flats)
        self.buffers: dict[str, Tensor] = {}  # fp32
        if buffers:
            self.buffers = {name: buffer.float().clone() for name, buffer in floating_buffers(fragments.engine.module)}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Adds the weights after optimizer step `step`, counted from 1."""
        new_weight = 1 - decay_at(step, self.decay, self.warmup)
        torch._foreach_lerp_(self.flats, self.fragments.flats(), new_weight)
        for name, average in self.buffers.items():
            average.lerp_(self.fragments.engine.module.get_buffer(name).float(), new_weight)
        self.masking.zero(self.flats)

    def weights(self) -> dict[str, Tensor]:
        """Whole fp32 tensors; a collective."""
        return self.fragments.gather(self.parts)

    @torch.no_grad()
    def copy_buffers_to(self, network: nn.Module) -> None:
        """Sets the buffers that are averaged, to their mean over ranks; a collective."""
        for name, average in self.buffers.items():
            network.get_buffer(name).copy_(mean_over_ranks(average, self.fragments.engine.ranks))


def floating_buffers(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Names and buffers of floating point: BatchNorm's statistics, but not its count of batches."""
    return [(name, buffer) for name, buffer in module.named_buffers() if buffer.is_floating_point()]
