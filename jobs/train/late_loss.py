"""Loss and gradient norm of an optimizer step, read by the host when the device has computed them, and not before.

Reading at once would leave the device without work until the host has read, and launched the next step. So a step's numbers are read while the next
one computes. All ranks have the same numbers and read them at the same point, so all find out together that a training has diverged.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from jobs.parallel.engine import is_norm


class Diverged(RuntimeError):
    """The loss or the gradient is no longer finite."""


class HostCopy:
    """Numbers on their way from the device to the host."""

    def __init__(self, numbers: Tensor) -> None:
        """`numbers`: one-dimensional, fp64. The copy is queued behind all work that the device has now."""
        self.ready: torch.cuda.Event | None = None
        self.host = numbers
        if numbers.device.type == "cuda":
            self.host = torch.empty_like(numbers, device="cpu", pin_memory=True).copy_(numbers, non_blocking=True)
            self.ready = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch has no types for it
            self.ready.record()

    def read(self) -> list[float]:
        """The numbers. Waits for the work before the copy, not for work that was queued later."""
        if self.ready is not None:
            self.ready.synchronize()
        numbers: list[float] = self.host.tolist()
        return numbers


@dataclass(frozen=True, kw_only=True)
class UnreadStep:
    """An optimizer step that was made and whose numbers were not read yet."""

    numbers: HostCopy  # loss, norm of the gradient
    position: str  # in the words of an error

    @classmethod
    def of(cls, loss: Tensor, norm: Tensor | float | None, position: str) -> "UnreadStep":
        """`loss`: the mean over the global batch, fp64; `norm`: of the gradient, if it is known."""
        known = torch.zeros_like(loss) if norm is None else torch.as_tensor(norm, dtype=loss.dtype, device=loss.device)
        return cls(numbers=HostCopy(torch.stack((loss, known.reshape(())))), position=position)

    def loss(self, last: float | None) -> float:
        """The loss. Raises Diverged if it is not finite, or the gradient is not. `last`: the loss of the step before."""
        loss, norm = self.numbers.read()
        if not math.isfinite(loss):
            raise Diverged(f"the loss is {loss} at {self.position}; the last finite one was {last}")
        if not is_norm(norm):
            raise Diverged(f"the gradient is not finite at {self.position}; loss {loss:g}")
        return loss
