"""Exponential moving averages of the fp32 weights. Each rank keeps its own part."""

import torch
from torch import Tensor

from jobs.parallel.fragments import Fragments
from jobs.parallel.masking import Masking


class Average:
    """Averaged weights, which are evaluated and saved instead of the current ones. Weights that a mask drops are zero in them too."""

    def __init__(self, decay: float, fragments: Fragments, masking: Masking) -> None:
        """Starts with the current weights."""
        self.decay, self.fragments, self.masking = decay, fragments, masking
        self.parts: dict[str, Tensor] = {name: fragment.master().clone() for name, fragment in fragments.by_name.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Adds the weights after optimizer step `step`, counted from 1. In the first steps the decay is only (1 + step) / (10 + step).

        Otherwise the initial weights would stay in the average for long.
        """
        new_weight = 1 - min(self.decay, (1 + step) / (10 + step))
        for name, fragment in self.fragments.by_name.items():
            self.parts[name].lerp_(fragment.master(), new_weight)
        self.masking.zero(self.parts)

    def weights(self) -> dict[str, Tensor]:
        """Whole fp32 tensors; a collective."""
        return self.fragments.gather(self.parts)
