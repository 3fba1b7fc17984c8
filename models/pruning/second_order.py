"""Weights chosen and updated by the second-order change of a layer's outputs: the optimal brain surgeon, column by column.

Frantar and Alistarh, arXiv 2301.00774, algorithm 1. Weights are (groups, rows, inputs); the rows of a group share their inputs (`input_products`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from models.pruning.masks import drop, living

Choose = Callable[[Tensor, Tensor], Tensor]  # scores, and which of their weights live, (groups, rows, columns) -> which go on living


def inverse_root(products: Tensor, damping: float) -> Tensor:
    """The upper triangular U, fp64, with U^T U = (H + damping * mean(diag H) I)^-1, for each group's H, (groups, inputs, inputs).

    Damping is as if every input had a little energy of its own: H may be singular, and inputs that are always zero need no rule. Without any input,
    H is the identity. Raises ValueError where H is not finite, or where the damping is too small for fp64.
    """
    damped = products.double().clone()
    if not damped.isfinite().all():
        raise ValueError("inputs hold NaN or infinity: the network has diverged, so its weights cannot be ranked")
    diagonal = damped.diagonal(dim1=-2, dim2=-1)
    mean = diagonal.mean(-1, keepdim=True)
    diagonal += torch.where(mean > 0, damping * mean, 1.0)
    # From the last input to the first: H = R R^T with an upper triangular R, so that R^-1 is the root
    lower, failed = torch.linalg.cholesky_ex(damped.flip(-2, -1))
    if failed.any():
        raise ValueError(f"the products of inputs have no inverse with damping {damping:g}: raise it, or read more batches")
    upper = lower.flip(-2, -1)
    identity = torch.eye(upper.shape[-1], dtype=upper.dtype, device=upper.device).expand_as(upper)
    root: Tensor = torch.linalg.solve_triangular(upper, identity, upper=True)
    return root


@torch.no_grad()
def prune_columns(weight: Tensor, root: Tensor, mask: Tensor, choose: Choose, *, block: int, every: int) -> tuple[Tensor, Tensor]:
    """(weights, mask), fp64 and bool, after each dropped weight moved the later weights of its row to where the outputs change least.

    root: as `inverse_root` gives it. mask: False for weights that are zero already and stay it. For the next `every` columns, w^2 / U_jj^2, the
    squared change of the outputs without w, goes to `choose`. Columns after a `block` are updated at its end; the results are the same.
    """
    weight, mask = weight.double().clone(), mask.clone()
    for first in range(0, weight.shape[-1], block):
        part, lives, own = weight[..., first : first + block], mask[..., first : first + block], root[:, first : first + block, first : first + block]
        scale = own.diagonal(dim1=-2, dim2=-1).unsqueeze(1)
        errors = torch.zeros_like(part)
        for at in range(part.shape[-1]):
            if at % every == 0:
                ahead = slice(at, at + every)
                lives[..., ahead] = choose((part[..., ahead] / scale[..., ahead]).square(), lives[..., ahead])
            errors[..., at] = part[..., at].masked_fill(lives[..., at], 0.0) / scale[..., at]
            part[..., at:] -= errors[..., at : at + 1] * own[:, None, at, at:]
        weight[..., first + block :] -= errors @ root[:, first : first + block, first + block :]
    return weight.masked_fill_(~mask, 0.0), mask


@dataclass(kw_only=True)
class LowestShare:
    """Drops the lowest scores of each part of a layer: of all parts together `drops` of the layer's `alive` weights, of each part its share.

    Of equal scores the first is dropped first.
    """

    name: str
    drops: int
    alive: int
    seen: int = 0
    dropped: int = 0

    def __call__(self, scores: Tensor, lives: Tensor) -> Tensor:
        """The mask of the next part."""
        alive = living(lives)
        self.seen += alive
        due = round(self.drops * self.seen / self.alive) - self.dropped if self.alive else 0
        self.dropped += due
        return drop({self.name: scores}, lives.numel() - alive + due, {self.name: lives})[self.name]


def highest_two(scores: Tensor, lives: Tensor) -> Tensor:
    """The mask of four columns that keeps the two highest scores of each row; of equal ones the later."""
    ascending = scores.masked_fill(~lives, -1.0).argsort(dim=-1, stable=True)
    return lives & torch.ones_like(lives).scatter_(-1, ascending[..., :2], False)
