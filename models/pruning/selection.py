"""The choice of the units that stay: those of the highest scores, at least one of every group."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from models.pruning.units import Units

if TYPE_CHECKING:
    from torch import Tensor


def keep_best(scores: "Mapping[str, Tensor]", ratio: float, scope: Literal["global", "layer"]) -> "dict[str, Tensor]":
    """Masks (units,), True where a unit stays. They drop round(ratio * units) units over all groups (global) or of each group (layer), the lowest
    scores first.

    The best unit of a group always stays; a unit of another group goes instead. Ties: as in `models.pruning.masks`.
    """
    from models.pruning.masks import choose

    highest = max(float(score.max()) for score in scores.values())
    protected = {name: score.clone() for name, score in scores.items()}
    for score in protected.values():
        score[score.argmax()] = highest + 1.0 + abs(highest)
    return choose(protected, ratio, scope)


def indices_kept(masks: "Mapping[str, Tensor]") -> dict[str, list[int]]:
    """The units that stay, for every group that loses a unit."""
    return {name: mask.nonzero().flatten().tolist() for name, mask in masks.items() if not mask.all()}


def check_ratio(groups: Sequence[Units], ratio: float, scope: Literal["global", "layer"], kinds: Sequence[str], reasons: str = "") -> None:
    """Raises ValueError, with numbers, if the network has no such units, or if `ratio` would leave a group without a unit.

    `reasons`: why the network has no others.
    """
    if not groups:
        raise ValueError(f"the network has no units of the kinds {', '.join(kinds)}: there is nothing to remove{reasons}")
    total = sum(units.count for units in groups)
    if scope == "global":
        if round(ratio * total) > total - len(groups):
            limit = f"one of each of its {len(groups)} groups stays, so that ratio can be at most {(total - len(groups)) / total:.3g}"
            raise ValueError(f"ratio {ratio:g} removes {round(ratio * total)} of the network's {total} units, and {limit}")
        return
    for units in groups:
        if round(ratio * units.count) >= units.count:
            limit = f"one stays, so that ratio must be below {(units.count - 0.5) / units.count:.3g}"
            raise ValueError(f"ratio {ratio:g} removes all {units.count} units of {units.name}, and {limit}; scope: global spreads the loss")
