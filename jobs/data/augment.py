"""What is random about data: the split, the order of an epoch, and each sample's box and flip, as pure functions of numbers.

Every draw is a hash of (seed, epoch, sample, draw): no generator has a state, so a draw does not depend on ranks, threads, batch sizes, on what was
drawn before, or on a library's version. Whole arrays of samples are drawn at once.

box    rows and columns of the stored image that become one img_size x img_size input; what lies outside of the image is zero
draw   number of a random number within one sample and one epoch
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from jobs.experiment.specs import DataSpec

BOX: Final = np.dtype([("top", "<i4"), ("left", "<i4"), ("rows", "<i4"), ("cols", "<i4"), ("flip", "<i4")])
GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
ORDER, FLIP, SHIFT, CROP = 0, 1, 2, 16  # first draw of each purpose; CROP takes four an attempt
CROP_ATTEMPTS: Final = 10
CROP_RATIO: Final = (3 / 4, 4 / 3)  # width / height
SPLIT_EPOCH: Final = -1  # no epoch of training has this number

Ints = NDArray[np.integer]
Floats = NDArray[np.floating]


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One step of splitmix64 (Steele, Lea, Flood 2014), elementwise and modulo 2^64."""
    values = values + GOLDEN
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _word(number: int) -> NDArray[np.uint64]:
    """`number` modulo 2^64, shape (1,): arrays wrap around silently where numpy's scalars warn."""
    return np.array([number % 2**64], np.uint64)


def random_bits(seed: int, epoch: int, samples: Ints, draw: int) -> NDArray[np.uint64]:
    """64 random bits for each of `samples`, same shape."""
    key = _mixed(_mixed(_mixed(_word(seed)) ^ _word(epoch)) ^ np.asarray(samples).astype(np.uint64))
    return _mixed(key + _word(draw) * GOLDEN)


def uniform(seed: int, epoch: int, samples: Ints, draw: int) -> Floats:
    """A number in [0, 1) for each of `samples`, float64."""
    return (random_bits(seed, epoch, samples, draw) >> np.uint64(11)) * 2.0**-53


def shuffled(samples: Ints, seed: int, epoch: int) -> Ints:
    """`samples` in the order of this epoch."""
    return samples[np.argsort(random_bits(seed, epoch, samples, ORDER), kind="stable")]


def held_out(labels: Ints, fraction: float, seed: int) -> NDArray[np.bool_]:
    """True for round(fraction * n) samples, taken from every class in proportion (largest remainders), never the last sample of a class."""
    classes, members, counts = np.unique(labels, return_inverse=True, return_counts=True)
    share = counts * fraction
    quota = np.floor(share).astype(int)
    missing = int(round(fraction * len(labels))) - int(quota.sum())
    quota[np.argsort(quota - share, kind="stable")[: max(missing, 0)]] += 1
    quota = np.minimum(quota, counts - 1)
    grouped = np.lexsort((random_bits(seed, SPLIT_EPOCH, np.arange(len(labels)), ORDER), members))
    place = np.empty(len(labels), int)  # rank of a sample within its class
    place[grouped] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return place < quota[members]


def eval_boxes(data: DataSpec, img_size: int, heights: Ints, widths: Ints) -> NDArray[np.void]:
    """BOX (n,): the central square of eval_crop x the shorter side; of the whole shorter side where that is img_size already."""
    shorter = np.minimum(heights, widths).astype(np.int64)
    side = np.where(shorter == img_size, shorter, np.maximum((shorter * data.eval_crop).astype(np.int64), 1))
    boxes = np.zeros(len(shorter), BOX)
    boxes["rows"] = boxes["cols"] = side
    boxes["top"], boxes["left"] = (heights - side) // 2, (widths - side) // 2
    return boxes


def train_boxes(data: DataSpec, img_size: int, heights: Ints, widths: Ints, samples: Ints, *, seed: int, epoch: int) -> NDArray[np.void]:
    """BOX (n,) for `samples` whose stored images have `heights` and `widths`. `samples` are positions in the file, so that ranks agree."""
    if data.augment == "crop":
        boxes = _cropped(data, heights, widths, samples, seed, epoch)
    else:
        boxes = eval_boxes(data, img_size, heights, widths)
    if data.augment == "shift":
        for draw, (start, length) in enumerate((("top", "rows"), ("left", "cols"))):
            pixels = np.floor(uniform(seed, epoch, samples, SHIFT + draw) * (2 * data.shift_px + 1)) - data.shift_px
            boxes[start] += np.rint(pixels * boxes[length] / img_size).astype(np.int32)
    if data.flip:
        boxes["flip"] = uniform(seed, epoch, samples, FLIP) < 0.5
    return boxes


def _cropped(data: DataSpec, heights: Ints, widths: Ints, samples: Ints, seed: int, epoch: int) -> NDArray[np.void]:
    """BOX (n,) of random resized crops (Szegedy et al. 2015, as torchvision draws): uniform area and log ratio, ten attempts, then the centre."""
    boxes = _central(heights, widths)
    low, high = np.log(CROP_RATIO)
    pending = np.arange(len(samples))
    for attempt in range(CROP_ATTEMPTS):
        area, ratio, down, right = (uniform(seed, epoch, samples[pending], CROP + 4 * attempt + draw) for draw in range(4))
        height, width = heights[pending].astype(np.int64), widths[pending].astype(np.int64)
        area = height * width * (data.crop_scale[0] + (data.crop_scale[1] - data.crop_scale[0]) * area)
        ratio = np.exp(low + (high - low) * ratio)
        rows, cols = np.rint(np.sqrt(area / ratio)).astype(np.int64), np.rint(np.sqrt(area * ratio)).astype(np.int64)
        fits = (rows > 0) & (rows <= height) & (cols > 0) & (cols <= width)
        done = pending[fits]
        boxes["rows"][done], boxes["cols"][done] = rows[fits], cols[fits]
        boxes["top"][done] = ((height - rows + 1) * down)[fits]
        boxes["left"][done] = ((width - cols + 1) * right)[fits]
        pending = pending[~fits]
    return boxes


def _central(heights: Ints, widths: Ints) -> NDArray[np.void]:
    """BOX (n,): the largest central box whose ratio lies within CROP_RATIO."""
    boxes = np.zeros(len(heights), BOX)
    boxes["rows"] = np.minimum(heights, np.rint(widths / CROP_RATIO[0]))
    boxes["cols"] = np.minimum(widths, np.rint(heights * CROP_RATIO[1]))
    boxes["top"], boxes["left"] = (heights - boxes["rows"]) // 2, (widths - boxes["cols"]) // 2
    return boxes
