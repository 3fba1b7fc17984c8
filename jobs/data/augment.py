"""The random part of loading images: the split, the order of an epoch, and each sample's box and flip, as pure functions of numbers.

Every random number is a hash of (seed, epoch, sample, draw). No generator has a state, so the numbers do not depend on ranks, threads, batch sizes,
earlier draws, or a library's version. Whole arrays of samples are drawn at once.

box    rows and columns of the stored image that become one img_size x img_size input; pixels outside the image are zero. Where `whole` is set, the
       image is resized to `rows` x `cols` instead, and (top, left) is the corner of the input in the result
draw   index of a random number within one sample and one epoch
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from jobs.experiment.specs import DataSpec

BOX: Final = np.dtype([("top", "<i4"), ("left", "<i4"), ("rows", "<i4"), ("cols", "<i4"), ("flip", "<i4"), ("whole", "<i4")])
GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
ORDER, FLIP, SHIFT, CROP = 0, 1, 2, 16  # first draw of each purpose; CROP takes four for each attempt
CROP_ATTEMPTS: Final = 10
CROP_RATIO: Final = (3 / 4, 4 / 3)  # width / height
REPEAT_BITS: Final = 40  # a file has fewer samples than 2 to this power
SPLIT_EPOCH: Final = -1  # no epoch of training has this number

Ints = NDArray[np.integer]
Floats = NDArray[np.floating]


def splitmix64(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One step of splitmix64 (Steele, Lea, Flood 2014) on each element, modulo 2^64."""
    values = values + GOLDEN
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def wrapped(number: int) -> NDArray[np.uint64]:
    """`number` modulo 2^64, shape (1,). An array, because numpy's scalars warn when they wrap around."""
    return np.array([number % 2**64], np.uint64)


def random_bits(seed: int, epoch: int, samples: Ints, draw: int) -> NDArray[np.uint64]:
    """64 random bits for each of `samples`, in the same shape."""
    key = splitmix64(splitmix64(splitmix64(wrapped(seed)) ^ wrapped(epoch)) ^ np.asarray(samples).astype(np.uint64))
    return splitmix64(key + wrapped(draw) * GOLDEN)


def uniform(seed: int, epoch: int, samples: Ints, draw: int) -> Floats:
    """A float64 in [0, 1) for each of `samples`."""
    return (random_bits(seed, epoch, samples, draw) >> np.uint64(11)) * 2.0**-53


def shuffled(samples: Ints, seed: int, epoch: int) -> Ints:
    """`samples` in the order of `epoch`."""
    return samples[np.argsort(random_bits(seed, epoch, samples, ORDER), kind="stable")]


def repeated(order: Ints, repeats: int, count: int, batch_size: int) -> tuple[Ints, Ints]:
    """The first `count` of an order in which each sample stands `repeats` times, and the number of each in draws, both (count,).

    Repeats follow each other from batch to batch, as in timm's RepeatAugSampler over all ranks. Within a batch all first repeats stand before the
    second ones, and so on: neighbours differ, and repeats meet in different micro-batches. `count`: a multiple of `batch_size`.
    """
    if repeats == 1:
        return order[:count], order[:count]
    samples = np.repeat(order[: -(-count // repeats)], repeats)[:count]
    numbers = np.arange(count) % repeats
    sorted_within = np.argsort(numbers.reshape(-1, batch_size), axis=1, kind="stable") + np.arange(0, count, batch_size)[:, None]
    samples, numbers = samples[sorted_within.reshape(-1)], numbers[sorted_within.reshape(-1)]
    return samples, samples + (numbers << REPEAT_BITS)


def held_out(labels: Ints, fraction: float, seed: int) -> NDArray[np.bool_]:
    """True for the samples that are held out, (n,): round(fraction * n) of them, the same fraction of each class by largest remainders.

    A class keeps at least one sample; fewer are held out where that takes it.
    """
    _, members, counts = np.unique(labels, return_inverse=True, return_counts=True)
    exact = counts * fraction
    quota: Ints = np.floor(exact).astype(int)
    missing = int(round(fraction * len(labels))) - int(quota.sum())
    quota[np.argsort(quota - exact, kind="stable")[: max(missing, 0)]] += 1
    quota = np.minimum(quota, counts - 1)
    grouped = np.lexsort((random_bits(seed, SPLIT_EPOCH, np.arange(len(labels)), ORDER), members))
    rank_in_class = np.empty(len(labels), int)
    rank_in_class[grouped] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    chosen: NDArray[np.bool_] = rank_in_class < quota[members]
    return chosen


def eval_boxes(data: DataSpec, img_size: int, heights: Ints, widths: Ints) -> NDArray[np.void]:
    """The central square of each image, BOX (n,).

    With the interpolation `area`, its side is eval_crop x the shorter side, or the whole shorter side where that is img_size. With the others, images
    are evaluated as in timm and torchvision: resized so that the shorter side is img_size / eval_crop, then cut.
    """
    boxes = np.zeros(len(heights), BOX)
    if data.interpolation != "area":
        return resized_whole(boxes, int(math.floor(img_size / data.eval_crop)), img_size, heights, widths)
    shorter = np.minimum(heights, widths).astype(np.int64)
    side = np.where(shorter == img_size, shorter, np.maximum((shorter * data.eval_crop).astype(np.int64), 1))
    boxes["rows"] = boxes["cols"] = side
    boxes["top"], boxes["left"] = (heights - side) // 2, (widths - side) // 2
    return boxes


def resized_whole(boxes: NDArray[np.void], shorter: int, img_size: int, heights: Ints, widths: Ints) -> NDArray[np.void]:
    """`boxes` filled with the centres of images resized to `shorter`, with the roundings of torchvision's Resize and CenterCrop."""
    low = np.minimum(heights, widths)
    for size, corner, lengths in (("rows", "top", heights), ("cols", "left", widths)):
        boxes[size] = shorter * lengths.astype(np.int64) / low
        boxes[corner] = np.rint((boxes[size] - img_size) / 2)
    boxes["whole"] = 1
    return boxes


def train_boxes(data: DataSpec, img_size: int, heights: Ints, widths: Ints, samples: Ints, *, seed: int, epoch: int) -> NDArray[np.void]:
    """The augmented box of each sample, BOX (n,). `samples` are positions in the file, so all ranks draw the same."""
    if data.augment == "crop":
        boxes = random_crops(data, heights, widths, samples, seed, epoch)
    else:
        boxes = eval_boxes(data, img_size, heights, widths)
    if data.augment == "shift":
        for draw, (start, length) in enumerate((("top", "rows"), ("left", "cols"))):
            pixels = np.floor(uniform(seed, epoch, samples, SHIFT + draw) * (2 * data.shift_px + 1)) - data.shift_px
            boxes[start] += np.where(boxes["whole"], pixels, np.rint(pixels * boxes[length] / img_size)).astype(np.int32)
    if data.flip:
        boxes["flip"] = uniform(seed, epoch, samples, FLIP) < 0.5
    return boxes


def random_crops(data: DataSpec, heights: Ints, widths: Ints, samples: Ints, seed: int, epoch: int) -> NDArray[np.void]:
    """Random resized crops, BOX (n,): uniform area and log ratio, ten attempts, then the central box.

    Szegedy et al. 2015, with the sampling of torchvision.
    """
    boxes = central_boxes(heights, widths)
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


def central_boxes(heights: Ints, widths: Ints) -> NDArray[np.void]:
    """The largest central box whose ratio lies within CROP_RATIO, BOX (n,)."""
    boxes = np.zeros(len(heights), BOX)
    boxes["rows"] = np.minimum(heights, np.rint(widths / CROP_RATIO[0]))
    boxes["cols"] = np.minimum(widths, np.rint(heights * CROP_RATIO[1]))
    boxes["top"], boxes["left"] = (heights - boxes["rows"]) // 2, (widths - boxes["cols"]) // 2
    return boxes
