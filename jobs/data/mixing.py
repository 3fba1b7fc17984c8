"""Mixup (Zhang et al. 2017) and cutmix (Yun et al. 2019) of neighbours, with the soft targets that belong to them, as timm's Mixup computes them.

Partners are the images 2k and 2k + 1 of the global batch, where timm takes the first and the last: so they are in one micro-batch, however small, and
the result depends neither on ranks nor on micro-batches. Weights and boxes come from hashes of (seed, epoch, step) or (seed, epoch, pair).
"""

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from jobs.data.augment import Floats, Ints, uniform
from jobs.experiment.specs import RecipeSpec

if TYPE_CHECKING:
    from torch import Tensor

# weight: the part of an image that stays its own; the box [top, bottom) x [left, right) comes from the partner, where the pair is cut
MIX: Final = np.dtype([("weight", "<f8"), ("cut", "?"), ("top", "<i4"), ("bottom", "<i4"), ("left", "<i4"), ("right", "<i4")])
MIXED, SWITCH, WEIGHT, ROW, COLUMN = 8192, 8193, 8194, 8195, 8196  # draws, in numbers that no sample's draw has


def draw_mixes(recipe: RecipeSpec, numbers: Ints, *, img_size: int, seed: int, epoch: int) -> NDArray[np.void]:
    """How pairs are mixed, MIX (n,). `numbers`: of the step within the epoch in mode batch, of the pair within the epoch in mode pair."""
    table = np.zeros(len(numbers), MIX)
    table["weight"] = 1.0
    if recipe.mixup_off_epoch is not None and epoch >= recipe.mixup_off_epoch:
        return table
    cut = np.full(len(numbers), recipe.cutmix > 0)
    if recipe.mixup > 0 and recipe.cutmix > 0:
        cut = uniform(seed, epoch, numbers, SWITCH) < recipe.mixup_switch_prob
    level = uniform(seed, epoch, numbers, WEIGHT)
    weight: Floats = np.where(cut, beta(recipe.cutmix, level), beta(recipe.mixup, level))
    if recipe.mixup_mode == "pair":
        weight = weight.astype(np.float32)  # as timm rounds it
    mixed = (uniform(seed, epoch, numbers, MIXED) < recipe.mixup_prob) & (weight != 1)
    table["weight"] = np.where(mixed, weight, 1.0)
    table["cut"] = cut & mixed
    ratio = np.sqrt(1 - weight)
    length = np.where(table["cut"], (img_size * ratio).astype(int), 0)
    for draw, low, high in ((ROW, "top", "bottom"), (COLUMN, "left", "right")):
        centre = np.floor(uniform(seed, epoch, numbers, draw) * img_size).astype(int)
        table[low] = np.clip(centre - length // 2, 0, img_size)
        table[high] = np.clip(centre + (length + 1) // 2, 0, img_size)
    area = (table["bottom"] - table["top"]) * (table["right"] - table["left"])
    table["weight"] = np.where(table["cut"], 1.0 - area / float(img_size * img_size), table["weight"]).astype(weight.dtype)
    return table


def beta(alpha: float, level: Floats) -> Floats:
    """The quantile of Beta(alpha, alpha) at each level, float64; 1 where alpha is 0."""
    from scipy.special import betaincinv

    quantiles: Floats = betaincinv(alpha, alpha, level) if alpha > 0 else np.ones(len(level))
    return quantiles


def mix_images(images: "Tensor", mixes: NDArray[np.void]) -> None:
    """Mixes neighbours in place: `images`, (b, 3, H, W) float32, `mixes`, MIX (b / 2,)."""
    if (mixes == mixes[0]).all():
        _mix(images, mixes[0])
    else:
        for number in range(len(mixes)):
            _mix(images[2 * number : 2 * number + 2], mixes[number])


def _mix(images: "Tensor", mix: np.void) -> None:
    """Mixes all neighbours alike, in place."""
    first, second = images[0::2], images[1::2]
    if mix["cut"]:
        box = tuple(int(mix[name]) for name in ("top", "bottom", "left", "right"))
        if images.device.type == "cpu":
            swap(images.numpy(), *box)
        else:
            rows, columns = slice(*box[:2]), slice(*box[2:])
            kept = first[:, :, rows, columns].clone()
            first[:, :, rows, columns] = second[:, :, rows, columns]
            second[:, :, rows, columns] = kept
    elif mix["weight"] != 1:
        own, others = float(mix["weight"]), 1.0 - float(mix["weight"])
        if images.device.type == "cpu":
            blend(images.numpy(), np.float32(own), np.float32(others))
        else:
            kept = first * others
            first.mul_(own).add_(second * others)
            second.mul_(own).add_(kept)


@njit(cache=True, nogil=True)
def swap(images: Any, top: int, bottom: int, left: int, right: int) -> None:
    """Neighbours of `images`, (b, 3, H, W), exchange a box."""
    for number in range(0, images.shape[0], 2):
        for channel in range(images.shape[1]):
            for y in range(top, bottom):
                for x in range(left, right):
                    first, second = images[number, channel, y, x], images[number + 1, channel, y, x]
                    images[number, channel, y, x], images[number + 1, channel, y, x] = second, first


@njit(cache=True, nogil=True)
def blend(images: Any, own: Any, others: Any) -> None:
    """Each of `images`, (b, 3, H, W), becomes own x itself + others x its neighbour, in single precision and in one pass."""
    for number in range(0, images.shape[0], 2):
        for channel in range(images.shape[1]):
            for y in range(images.shape[2]):
                for x in range(images.shape[3]):
                    first, second = images[number, channel, y, x], images[number + 1, channel, y, x]
                    images[number, channel, y, x] = first * own + second * others
                    images[number + 1, channel, y, x] = second * own + first * others


def soft_targets(labels: "Tensor", mixes: NDArray[np.void], classes: int, smoothing: float) -> "Tensor":
    """The targets of mixed images, (b, classes) float32 that sum to 1. `labels`: (b,) int64. `mixes`: MIX (b / 2,)."""
    import torch

    off = smoothing / classes
    targets = torch.full((len(labels), classes), off, device=labels.device).scatter_(1, labels.view(-1, 1), 1.0 - smoothing + off)
    partners = targets.view(-1, 2, classes).flip(1).view(-1, classes)
    own = np.repeat(mixes["weight"], 2)[:, None]
    weights = (torch.from_numpy(part.astype(np.float32)).to(labels.device) for part in (own, 1.0 - own))
    return targets * next(weights) + partners * next(weights)
