"""What the count of multiply-adds leaves out, bounded: so many operations an element of the largest tensor that an operation reads or writes."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

WORTH_A_NOTE = 0.05  # share of all operations; networks of a few channels have more, and are no mistake

# Operations on one element, rounded up. A copy costs memory traffic and no arithmetic; an exponential or an error function some twenty.
KINDS: dict[int, str] = {
    0: "alias clone complex expand_as fill_ flip imag lift_fresh meshgrid movedim numpy_T pad pixel_shuffle pixel_unshuffle real repeat "
    "repeat_interleave unflatten view_as_complex view_as_real zero_",
    1: "__or__ abs add add_ addcmul cumsum adaptive_avg_pool1d adaptive_avg_pool2d amax div div_ hardtanh hardtanh_ le lt mean mul mul_ ne neg "
    "reciprocal relu6 rsub square sub sub_ sum where",
    8: "avg_pool2d batch_norm group_norm hardsigmoid hardswish layer_norm max_pool2d rms_norm rsqrt sqrt",
    20: "cos exp expm1 gelu log log1p pow sigmoid silu silu_ sin softmax softplus tanh",
}
LIGHT: dict[str, int] = {f"aten::{name}": operations for operations, names in KINDS.items() for name in names.split()}


@dataclass(frozen=True, kw_only=True)
class Uncounted:
    """Operations that the count leaves out, by name: how often they ran, and at most how many operations on numbers they are."""

    times: Counter[str] = field(default_factory=Counter)
    bounds: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, inputs: list[Any], outputs: list[Any]) -> None:
        """Takes in one run of a light operation, as fvcore's trace has it."""
        self.times[name] += 1
        self.bounds[name] += LIGHT.get(name, 0) * max((numbers(value) for value in (*inputs, *outputs) if value.isCompleteTensor()), default=0)

    def share(self, counted: float) -> float:
        """The part of all operations that went uncounted, at most; `counted`: multiply-adds."""
        left_out = self.bounds.total()
        return left_out / (left_out + counted) if left_out else 0.0

    def check(self, unknown: Mapping[str, int]) -> None:
        """Raises ValueError for operations of which nothing is known: they might be the heavy ones."""
        if unknown:
            raise ValueError(
                f"nothing counts the operations {', '.join(sorted(unknown))}: give them a counter in jobs/measure/multiply_adds.py, "
                f"or say in {__name__} how light they are"
            )


def numbers(value: Any) -> int:
    """Elements of a tensor in the trace; a complex one is worth four, as an operation on it is worth four on real numbers."""
    return math.prod(value.type().sizes()) * (4 if value.type().dtype().is_complex else 1)
