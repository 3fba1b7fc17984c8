"""Numbers of zeros for each parameter, for methods that set them by a rule and not by one threshold. No torch."""

import math
from collections.abc import Mapping, Sequence


def erk(shapes: Mapping[str, Sequence[int]], sparsity: float) -> dict[str, int]:
    """Zeros of each parameter by Erdos-Renyi-Kernel: density proportional to sum(shape) / prod(shape); round(sparsity * n) in all.

    A parameter whose density would exceed 1 stays dense, and the other parameters get its zeros. Evci et al., arXiv 1911.11134, section 3.
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    total = round(sparsity * sum(sizes.values()))
    kept = sum(sizes.values()) - total
    dense: set[str] = set()
    while True:
        weight = {name: sum(shape) for name, shape in shapes.items() if name not in dense}  # density times size, without the common factor
        left = kept - sum(sizes[name] for name in dense)
        factor = left / sum(weight.values()) if weight else 0.0
        overfull = {name for name, value in weight.items() if factor * value > sizes[name]}
        if not overfull:
            break
        dense |= overfull
    return whole({name: sizes[name] - (sizes[name] if name in dense else factor * weight[name]) for name in sizes}, total)


def whole(amounts: Mapping[str, float], total: int) -> dict[str, int]:
    """Whole numbers that add up to `total`. The amounts with the largest remainders are rounded up, the others down; on a tie the first goes up."""
    counts = {name: math.floor(amount) for name, amount in amounts.items()}
    by_remainder = sorted(counts, key=lambda name: counts[name] - amounts[name])
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    return counts
