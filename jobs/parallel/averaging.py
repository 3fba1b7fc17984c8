"""Exponential moving averages of the fp32 weights, each rank keeping its own part."""

import torch
from torch import Tensor

from jobs.parallel.fragments import Fragments
from jobs.parallel.masking import Masking


class Average:
    """Averaged weights, which are evaluated and saved in place of the last ones. What a mask drops is zero in them too."""

    def __init__(self, decay: float, fragments: Fragments, masking: Masking) -> None:
        """Starts at the current weights."""
        self.decay, self.fragments, self.masking = decay, fragments, masking
        self.parts: dict[str, Tensor] = {name: fragment.master().clone() for name, fragment in fragments.by_name.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the weights after optimizer step `step`, from 1. Early on the decay is (1 + step) / (10 + step), or the start would linger."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        for name, fragment in self.fragments.by_name.items():
            self.parts[name].lerp_(fragment.master(), share)
        self.masking.zero(self.parts)

    def weights(self) -> dict[str, Tensor]:
        """Whole fp32 tensors; a collective."""
        return self.fragments.gather(self.parts)
