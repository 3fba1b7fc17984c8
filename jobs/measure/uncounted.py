"""An upper bound on the operations that the count of multiply-adds leaves out.

Each of them costs at most a fixed number of operations for each element of the largest tensor that it reads or writes.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

TraceValue = Any  # torch._C.Value, a value of fvcore's trace. torch's type hints lack sizes and dtype of tensors in a trace.
WORTH_A_NOTE = 0.05  # fraction of all operations; networks of a few channels have more, and that is no error

# Operations on one element, rounded up. A copy costs memory traffic but no arithmetic; an exponential or an error function costs about
# twenty, and so does a token's part in a sort: one comparison for each doubling of their number.
KINDS: dict[int, str] = {
    0: "alias clone complex expand_as fill_ flip imag index_select lift_fresh meshgrid movedim numpy_T pad pixel_shuffle pixel_unshuffle "
    "real repeat repeat_interleave scatter tril unflatten view_as_complex view_as_real zero_ ceil one_hot reshape_as tile "
    "upsample_nearest2d",
    1: "__or__ abs add add_ addcmul cumsum adaptive_avg_pool1d adaptive_avg_pool2d amax div div_ hardtanh hardtanh_ le lt mean mul mul_ "
    "ne neg reciprocal relu6 rsub scatter_add square sub sub_ sum where clamp clamp_min argmax index_add",
    8: "avg_pool2d batch_norm group_norm hardsigmoid hardswish layer_norm max_pool2d rms_norm rsqrt sqrt hardsigmoid_ hardswish_ "
    "linalg_vector_norm upsample_bilinear2d upsample_linear1d var var_mean",
    20: "argsort cos exp expm1 gelu log log1p pow sigmoid silu silu_ sin softmax softplus sort tanh",
    64: "upsample_bicubic2d",
}
LIGHT: dict[str, int] = {f"aten::{name}": operations for operations, names in KINDS.items() for name in names.split()}


@dataclass(frozen=True, kw_only=True)
class Uncounted:
    """The operations that the count leaves out, by name."""

    times: Counter[str] = field(default_factory=Counter)  # how often each ran
    bounds: Counter[str] = field(default_factory=Counter)  # at most this many operations on numbers

    def add(self, name: str, inputs: list[TraceValue], outputs: list[TraceValue]) -> None:
        """Adds one run of a light operation."""
        self.times[name] += 1
        self.bounds[name] += LIGHT.get(name, 0) * max((numbers(value) for value in (*inputs, *outputs) if value.isCompleteTensor()), default=0)

    def share(self, counted: float) -> float:
        """At most this fraction of all operations is left out. `counted`: multiply-adds."""
        left_out = self.bounds.total()
        return left_out / (left_out + counted) if left_out else 0.0

    def check(self, unknown: Mapping[str, int]) -> None:
        """Raises ValueError for operations that are neither counted nor known to be light."""
        if unknown:
            raise ValueError(
                f"nothing counts the operations {', '.join(sorted(unknown))}: give them a counter in jobs/measure/multiply_adds.py, "
                f"or a bound in {__name__}"
            )


def numbers(value: TraceValue) -> int:
    """Elements of a tensor in the trace. A complex element counts four, because an operation on it takes four operations on real numbers."""
    elements: int = math.prod(value.type().sizes())
    return elements * (4 if value.type().dtype().is_complex else 1)
