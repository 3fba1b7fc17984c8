"""How many zeros each parameter gets, where one threshold for all is not what decides. No torch."""

import math
from collections.abc import Mapping, Sequence


def erk(shapes: Mapping[str, Sequence[int]], sparsity: float) -> dict[str, int]:
    """Zeros of each parameter by Erdos-Renyi-Kernel: density proportional to sum(shape) / prod(shape); round(sparsity * n) in all.

    A parameter whose density would pass 1 stays dense, and the others carry its share. Evci et al., arXiv 1911.11134, section 3.
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    total = round(sparsity * sum(sizes.values()))
    kept = sum(sizes.values()) - total
    dense: set[str] = set()
    while True:
        weight = {name: sum(shape) for name, shape in shapes.items() if name not in dense}  # density times size, but for the common factor
        left = kept - sum(sizes[name] for name in dense)
        factor = left / sum(weight.values()) if weight else 0.0
        overfull = {name for name, share in weight.items() if factor * share > sizes[name]}
        if not overfull:
            break
        dense |= overfull
    return whole({name: sizes[name] - (sizes[name] if name in dense else factor * weight[name]) for name in sizes}, total)


def whole(shares: Mapping[str, float], total: int) -> dict[str, int]:
    """Whole numbers that add up to `total`, each share rounded down or up: up where the remainder is largest, the first in order among equals."""
    counts = {name: math.floor(share) for name, share in shares.items()}
    by_remainder = sorted(counts, key=lambda name: counts[name] - shares[name])
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    return counts
