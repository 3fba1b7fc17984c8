"""Masks. A mask is a bool tensor of the weight's shape, True where the weight lives.

Counts are exact: a sparsity s over n weights drops round(s * n) of them, by Python's round (nearest, halves to even). Of equal scores the first is
dropped first, in the sequence of the mapping and then row by row, so that every rank and every machine drops the same weights.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

SAMPLE = 1 << 20  # scores that are sorted to bracket a threshold before it is looked up exactly
MARGIN = 5000  # positions in that sample on either side: five standard deviations of a random sample's quantile are 2,560


def choose(
    scores: Mapping[str, Tensor], sparsity: float, scope: Literal["global", "layer"], within: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Masks that keep the highest scores: round(sparsity * n) zeros over all parameters (global) or in each (layer).

    `within`: masks whose zeros stay zeros and count towards the sparsity. If they already have more zeros than that, they are returned.
    ValueError names a parameter whose scores are not finite.
    """
    if scope == "layer":
        return {name: drop({name: score}, round(sparsity * score.numel()), within)[name] for name, score in scores.items()}
    return drop(scores, round(sparsity * sum(score.numel() for score in scores.values())), within)


def drop(scores: Mapping[str, Tensor], zeros: int, within: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Masks with `zeros` zeros in all, at the lowest scores, or more if `within` has more. Never copies all scores at once."""
    for name, score in scores.items():
        if score.numel() and not torch.stack(torch.aminmax(score)).isfinite().all():
            raise ValueError(f"scores of '{name}' hold NaN or infinity: the network has diverged, so its weights cannot be ranked")
    within = {name: within[name] for name in scores} if within else {}
    gone = sum(mask.numel() - living(mask) for mask in within.values())
    if zeros <= gone:
        return {name: within[name].clone() if within else torch.ones_like(score, dtype=torch.bool) for name, score in scores.items()}
    ranked = {name: score.masked_fill(~within[name], -torch.inf) if within else score for name, score in scores.items()}
    threshold = kth_smallest(list(ranked.values()), zeros)
    masks = {name: (score > threshold).contiguous() for name, score in ranked.items()}
    revive(masks, ranked, threshold, sum(mask.numel() - living(mask) for mask in masks.values()) - zeros)
    return masks


def revive(masks: Mapping[str, Tensor], scores: Mapping[str, Tensor], threshold: Tensor, surplus: int) -> None:
    """Revives the last `surplus` of the weights whose score is the threshold, because dropping all of them drops too many."""
    for name in reversed(list(masks)):
        if surplus == 0:
            return
        tied = (scores[name] == threshold).flatten().nonzero().flatten()[-surplus:]
        masks[name].view(-1)[tied] = True
        surplus -= len(tied)


def kth_smallest(tensors: Sequence[Tensor], k: int) -> Tensor:
    """The k-th smallest value (k from 1) over all tensors, exactly, without a copy of them all.

    A sorted sample gives a narrow bracket. One pass counts the values below it and gathers those inside, among which the value is looked up. If the
    sample is misleading and the value is not inside, all values are searched.
    """
    flat = [tensor.detach().reshape(-1) for tensor in tensors]
    total = sum(map(len, flat))
    sample = torch.cat([values[:: max(1, total // SAMPLE)] for values in flat]).sort().values
    middle = k * len(sample) // total
    low, high = sample[max(middle - MARGIN, 0)], sample[min(middle + MARGIN, len(sample) - 1)]
    rank = k - sum(int(torch.count_nonzero(values < low)) for values in flat)
    inside = torch.cat([values[(values >= low) & (values <= high)] for values in flat])
    if not 1 <= rank <= len(inside):
        rank, inside = k, torch.cat(flat)
    return inside.kthvalue(rank).values


def living(mask: Tensor) -> int:
    """Number of weights that a mask keeps."""
    return int(torch.count_nonzero(mask))


def sparsity_of(masks: Mapping[str, Tensor]) -> float:
    """Fraction of zeros over all masks; 0.0 without masks."""
    total = sum(mask.numel() for mask in masks.values())
    return 1.0 - sum(map(living, masks.values())) / total if total else 0.0
