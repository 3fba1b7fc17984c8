"""Random erasing (Zhong et al. 2017) of normalised images as timm does it: rectangles of noise, of one colour, or of zeros.

Where and whether come from hashes of (seed, epoch, sample). The noise comes from torch's own generator, which is seeded by such a hash for each
image, so that none of its state outlives the image.
"""

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from jobs.data.augment import Floats, Ints, random_bits, uniform
from jobs.experiment.specs import RecipeSpec

if TYPE_CHECKING:
    from torch import Generator, Tensor

RECTANGLE: Final = np.dtype([("top", "<i4"), ("left", "<i4"), ("rows", "<i4"), ("cols", "<i4")])
# first draw of each purpose; a rectangle takes four for each attempt
ERASE, COUNT, NOISE, SHAPE = 4096, 4097, 4098, 4100
ATTEMPTS: Final = 10
AREA: Final = (0.02, 1 / 3)  # of the image
LOG_RATIO: Final = (np.log(0.3), np.log(1 / 0.3))  # rows / cols


def draw_rectangles(recipe: RecipeSpec, samples: Ints, *, img_size: int, seed: int, epoch: int) -> NDArray[np.void]:
    """The rectangles of each sample, RECTANGLE (n, random_erase_count), as timm's RandomErasing draws them. One without rows is none."""
    most = recipe.random_erase_count
    table = np.zeros((len(samples), most), RECTANGLE)
    erased = np.flatnonzero(uniform(seed, epoch, samples, ERASE) <= recipe.random_erase) if recipe.random_erase else np.empty(0, int)
    counts = 1 + np.floor(uniform(seed, epoch, samples[erased], COUNT) * most).astype(int)
    for number in range(most):
        chosen = erased[counts > number]
        area = img_size * img_size / counts[counts > number]
        table[chosen, number] = _rectangles(samples[chosen], area, SHAPE + 4 * ATTEMPTS * number, img_size, seed, epoch)
    return table


def _rectangles(samples: Ints, area: Floats, first: int, img_size: int, seed: int, epoch: int) -> NDArray[np.void]:
    """One rectangle of each sample, RECTANGLE (n,): uniform area and log ratio, ten attempts, else none."""
    table = np.zeros(len(samples), RECTANGLE)
    pending = np.arange(len(samples))
    for attempt in range(ATTEMPTS):
        size, ratio, down, right = (uniform(seed, epoch, samples[pending], first + 4 * attempt + draw) for draw in range(4))
        size = (AREA[0] + (AREA[1] - AREA[0]) * size) * area[pending]
        ratio = np.exp(LOG_RATIO[0] + (LOG_RATIO[1] - LOG_RATIO[0]) * ratio)
        rows, cols = np.rint(np.sqrt(size * ratio)).astype(int), np.rint(np.sqrt(size / ratio)).astype(int)
        fits = (rows < img_size) & (cols < img_size)
        done = pending[fits]
        table["rows"][done], table["cols"][done] = rows[fits], cols[fits]
        table["top"][done] = ((img_size - rows + 1) * down)[fits]
        table["left"][done] = ((img_size - cols + 1) * right)[fits]
        pending = pending[~fits]
    return table


def noise_seeds(samples: Ints, *, seed: int, epoch: int) -> Ints:
    """The seed of each sample's noise, (n,) int64, 0 or more."""
    return (random_bits(seed, epoch, samples, NOISE) >> np.uint64(1)).astype(np.int64)


def erase(images: "Tensor", rectangles: NDArray[np.void], seeds: Ints, mode: str, generator: "Generator") -> None:
    """Erases the rectangles, RECTANGLE (b, count), of normalised `images`, (b, 3, H, W), in place. `generator`: of their device, to be seeded."""
    for number in np.flatnonzero(rectangles["rows"].any(axis=1)):
        generator.manual_seed(int(seeds[number]))
        for top, left, rows, cols in rectangles[number].tolist():
            if rows and cols:
                part = images[number, :, top : top + rows, left : left + cols]
                part.copy_(_colours(part, mode, generator))


def _colours(part: "Tensor", mode: str, generator: "Generator") -> "Tensor":
    """What replaces `part`, (3, rows, cols)."""
    if mode == "pixel":
        return part.new_empty(part.shape).normal_(generator=generator)
    colour = part.new_zeros((3, 1, 1))
    return colour.normal_(generator=generator) if mode == "rand" else colour
