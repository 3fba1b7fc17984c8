"""Operations on the pixels of one image, equal to PIL's bit for bit, without PIL's copies and without Python's lock.

timm's operations are calls of PIL. Here each is a numba function on the loader's own array, (H, W, 3) uint8, so that threads run side by side, and
bicubic shears and translations need one of PIL's five polynomials. Blur alone goes through PIL. The tests compare every operation with timm's.

table    (3, 256) uint8: what becomes of each value of each channel
"""

import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from jobs.data.decoding import library
from jobs.data.operations import BICUBIC, NAMES, NOTHING

Image = NDArray[np.uint8]
IDENTITY: Final = np.arange(256, dtype=np.uint8)
SOLARIZE_ADD_BELOW: Final = 128


def change(images: NDArray[np.uint8], operations: NDArray[np.void], fill: NDArray[np.uint8], threads: int) -> None:
    """Changes `images`, (b, H, W, 3), in place as `operations`, OPERATION (b, slots), say.

    `fill`: the grey levels, (3,), of pixels that come from outside an image; timm takes the mean. Equal for any number of threads.
    """
    touched = np.flatnonzero((operations["code"] != NOTHING).any(axis=1))

    def change_some(first: int) -> None:
        for number in touched[first::threads]:
            operate(images[number], operations[number], fill)

    if threads == 1:
        change_some(0)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(change_some, range(threads)))


def operate(image: Image, operations: NDArray[np.void], fill: NDArray[np.uint8]) -> None:
    """Changes `image`, (H, W, 3), in place: the operations of one row, OPERATION (slots,), one after the other. `fill`: (3,)."""
    for code, resample, value in operations.tolist():
        if code != NOTHING:
            name = NAMES[code]
            if name in CHANGES:
                CHANGES[name](image, value)
            else:
                moved(image, name, value, resample == BICUBIC, fill)


# tables


def auto_contrast(image: Image, _: float) -> None:
    """PIL's ImageOps.autocontrast without a cutoff."""
    look_up(image, np.stack([_stretched(counts) for counts in histograms(image)]))


def _stretched(counts: NDArray[np.int64]) -> Any:
    levels = np.flatnonzero(counts)
    low, high = int(levels[0]), int(levels[-1])
    if high <= low:
        return IDENTITY
    scale = 255.0 / (high - low)
    return np.clip(np.trunc(np.arange(256) * scale + -low * scale), 0, 255).astype(np.uint8)


def equalize(image: Image, _: float) -> None:
    """PIL's ImageOps.equalize."""
    look_up(image, np.stack([_equalized(counts) for counts in histograms(image)]))


def _equalized(counts: NDArray[np.int64]) -> Any:
    levels = np.flatnonzero(counts)
    step = int(counts.sum() - counts[levels[-1]]) // 255
    if len(levels) <= 1 or step == 0:
        return IDENTITY
    below = np.cumsum(counts) - counts
    return np.minimum((step // 2 + below) // step, 255).astype(np.uint8)


def invert(image: Image, _: float) -> None:
    """255 minus each value."""
    np.subtract(255, image, out=image)


def posterize(image: Image, bits: float) -> None:
    """Keeps the highest bits of each value: 8 or more change nothing, none is black.

    Pillow 13 refuses fewer than one bit, so timm's function fails where its own magnitudes ask for none; earlier versions gave black.
    """
    if bits < 8:
        np.bitwise_and(image, np.uint8(0xFF & ~(2 ** (8 - max(0, int(bits))) - 1)), out=image)


def solarize(image: Image, threshold: float) -> None:
    """Inverts the values from a threshold on."""
    _look_up_alike(image, np.where(np.arange(256) < threshold, IDENTITY, 255 - IDENTITY))


def solarize_add(image: Image, added: float) -> None:
    """Adds to the values below 128."""
    levels = np.arange(256)
    _look_up_alike(image, np.where(levels < SOLARIZE_ADD_BELOW, np.minimum(255, levels + int(added)), levels))


def brightness(image: Image, factor: float) -> None:
    """PIL's ImageEnhance.Brightness: away from black by a factor."""
    _look_up_alike(image, _blended(0, factor))


def contrast(image: Image, factor: float) -> None:
    """PIL's ImageEnhance.Contrast: away from the mean grey level by a factor."""
    height, width = image.shape[:2]
    _look_up_alike(image, _blended(int(grey_sum(image) / (height * width) + 0.5), factor))


def _blended(level: int, factor: float) -> Any:
    """What PIL's Image.blend makes of a constant level and each value: in single precision, cut to whole numbers."""
    start, alpha = np.float32(level), np.float32(factor)
    return np.clip(start + alpha * (np.arange(256, dtype=np.float32) - start), 0, 255).astype(np.uint8)


def _look_up_alike(image: Image, table: NDArray[Any]) -> None:
    look_up(image, np.broadcast_to(table.astype(np.uint8), (3, 256)).copy())


@njit(cache=True, nogil=True)
def look_up(image: Any, table: Any) -> None:
    """Replaces each value of `image` by its entry in `table`."""
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            for channel in range(3):
                image[y, x, channel] = table[channel, image[y, x, channel]]


@njit(cache=True, nogil=True)
def histograms(image: Any) -> Any:
    """How often each value occurs in each channel, (3, 256)."""
    counts = np.zeros((3, 256), np.int64)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            for channel in range(3):
                counts[channel, image[y, x, channel]] += 1
    return counts


# colours and neighbours


@njit(cache=True, nogil=True)
def grey(red: Any, green: Any, blue: Any) -> Any:
    """PIL's grey level of a colour (ITU-R 601-2 luma)."""
    return (np.int64(red) * 19595 + np.int64(green) * 38470 + np.int64(blue) * 7471 + 0x8000) >> 16


@njit(cache=True, nogil=True)
def grey_sum(image: Any) -> int:
    """The sum of the grey levels of all pixels."""
    total = 0
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            total += grey(image[y, x, 0], image[y, x, 1], image[y, x, 2])
    return total


@njit(cache=True, nogil=True)
def blended(start: Any, end: Any, alpha: Any) -> Any:
    """PIL's blend of two values in single precision."""
    value = np.float32(start) + alpha * (np.float32(end) - np.float32(start))
    return np.uint8(min(max(value, np.float32(0.0)), np.float32(255.0)))


@njit(cache=True, nogil=True)
def saturate(image: Any, alpha: Any) -> None:
    """Moves each colour away from its grey level by the factor `alpha`, float32, in place."""
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            level = grey(image[y, x, 0], image[y, x, 1], image[y, x, 2])
            for channel in range(3):
                image[y, x, channel] = blended(level, image[y, x, channel], alpha)


@njit(cache=True, nogil=True)
def sharpen(source: Any, image: Any, alpha: Any) -> None:
    """Fills `image` with `source` moved away from its smoothed form, but for the border. PIL smooths with (1 1 1, 1 5 1, 1 1 1) / 13 and rounds."""
    for y in range(1, source.shape[0] - 1):
        for x in range(1, source.shape[1] - 1):
            for channel in range(3):
                total = 4 * np.int64(source[y, x, channel])
                for row in range(y - 1, y + 2):
                    for column in range(x - 1, x + 2):
                        total += source[row, column, channel]
                image[y, x, channel] = blended((2 * total + 13) // 26, source[y, x, channel], alpha)


def color(image: Image, factor: float) -> None:
    """PIL's ImageEnhance.Color."""
    saturate(image, np.float32(factor))


def sharpness(image: Image, factor: float) -> None:
    """PIL's ImageEnhance.Sharpness."""
    sharpen(image.copy(), image, np.float32(factor))


def gaussian_blur(image: Image, radius: float) -> None:
    """PIL's ImageFilter.GaussianBlur."""
    import PIL.Image
    from PIL import ImageFilter

    image[:] = np.asarray(PIL.Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))


CHANGES: Final[Mapping[str, Callable[[Image, float], None]]] = {
    "AutoContrast": auto_contrast,
    "Equalize": equalize,
    "Invert": invert,
    "Posterize": posterize,
    "Solarize": solarize,
    "SolarizeAdd": solarize_add,
    "Color": color,
    "Contrast": contrast,
    "Brightness": brightness,
    "Sharpness": sharpness,
    "GaussianBlur": gaussian_blur,
}


# places


def rotation(degrees: float, width: int, height: int) -> tuple[float, ...]:
    """The matrix of PIL's Image.rotate about the centre, by any angle but a multiple of 90 degrees that is not 0."""
    angle = -math.radians(degrees % 360.0)
    cos, sin = round(math.cos(angle), 15), round(math.sin(angle), 15)
    x, y = width / 2, height / 2
    return cos, sin, cos * -x + sin * -y + 0.0 + x, round(-math.sin(angle), 15), cos, round(-math.sin(angle), 15) * -x + cos * -y + 0.0 + y


# along which axis an operation slides the pixels of each line, and how far for a value: per line, and all lines alike
SLIDES: Final[Mapping[str, tuple[int, Callable[[float], tuple[float, float]]]]] = {
    "ShearX": (0, lambda value: (value, 0.0)),
    "ShearY": (1, lambda value: (value, 0.0)),
    "TranslateX": (0, lambda value: (0.0, value)),
    "TranslateY": (1, lambda value: (0.0, value)),
}


def moved(image: Image, name: str, value: float, cubes: bool, fill: NDArray[np.uint8]) -> None:
    """PIL's affine transform of `image`, in place, by cubics or by lines. `fill`: (3,), what comes from outside."""
    if name == "Rotate":
        height, width = image.shape[:2]
        turn(image, np.array(rotation(value, width, height)), cubes, fill)
        return
    axis, amounts = SLIDES[name]
    if axis == 0:
        slide(image, *amounts(value), cubes, fill)
    else:
        columns = np.asarray(cv2.transpose(image), np.uint8)
        slide(columns, *amounts(value), cubes, fill)
        cv2.transpose(columns, image)


def turn(image: Image, matrix: NDArray[np.float64], cubes: bool, fill: NDArray[np.uint8]) -> None:
    """PIL's affine transform by any `matrix`, (a, b, c, d, e, f), in place: (x, y) comes from (a x + b y + c, d x + e y + f)."""
    built = library()
    if built is None:
        return (bicubic if cubes else bilinear)(image.copy(), image, matrix, fill)
    assert image.flags.c_contiguous and fill.flags.c_contiguous
    built.vssm_turn(image.ctypes.data, *image.shape[:2], matrix.ctypes.data, int(cubes), fill.ctypes.data)


@njit(cache=True, nogil=True)
def cubic(before: float, first: float, second: float, after: float, part: float) -> float:
    """PIL's cubic polynomial through four values (a = -1), at `part` of the way from the first to the second."""
    p2 = -before + second
    p3 = 2.0 * (before - first) + second - after
    p4 = -before + first - second + after
    return first + part * (p2 + part * (p3 + part * p4))


@njit(cache=True, nogil=True)
def slide(lines: Any, slope: float, offset: float, cubes: bool, fill: Any) -> None:
    """Slides the pixels of each line of `lines`, (L, W, 3), in place: pixel x of line y comes from x + slope (y + 1/2) + offset.

    Across the lines PIL's cubics and lines are at their nodes, so that one polynomial is left of five.
    """
    count, width = lines.shape[0], lines.shape[1]
    values = np.empty(3 * (width + 4))  # of a line, with its first and last pixel repeated twice
    lefts, parts = np.empty(width, np.int64), np.empty(3 * width)
    for y in range(count):
        line = lines[y].reshape(3 * width)
        for i in range(3 * width):
            values[6 + i] = line[i]
        for i in range(6):
            values[i], values[3 * width + 6 + i] = line[i % 3], line[3 * width - 3 + i % 3]
        start, end, regular = width, 0, True
        for x in range(width):
            position = (x + 0.5) + slope * (y + 0.5) + offset
            if 0.0 <= position < width:
                start, end = min(start, x), x + 1
                lefts[x] = math.floor(position - 0.5)
                parts[3 * x] = parts[3 * x + 1] = parts[3 * x + 2] = position - 0.5 - lefts[x]
                regular = regular and lefts[x] - x == lefts[start] - start
        for x in range(start):
            line[3 * x], line[3 * x + 1], line[3 * x + 2] = fill[0], fill[1], fill[2]
        for x in range(max(start, end), width):
            line[3 * x], line[3 * x + 1], line[3 * x + 2] = fill[0], fill[1], fill[2]
        if regular and start < end:
            near = values[3 * (lefts[start] + 1) :]  # from the pixel before the first one on
            slid(near, parts[3 * start : 3 * end], line[3 * start : 3 * end], cubes)
        else:
            for x in range(start, end):
                slid(values[3 * (lefts[x] + 1) :], parts[3 * x : 3 * x + 3], line[3 * x : 3 * x + 3], cubes)


@njit(cache=True, nogil=True)
def slid(values: Any, parts: Any, out: Any, cubes: bool) -> None:
    """Fills `out`, (n,), between neighbours of `values`, three apart as channels are; the first pixel of `values` is the one before."""
    if cubes:
        for i in range(len(out)):
            value = cubic(values[i], values[i + 3], values[i + 6], values[i + 9], parts[i])
            out[i] = np.uint8(np.int32(min(max(value, 0.0), 255.0)))
    else:
        for i in range(len(out)):
            out[i] = np.uint8(np.int32(values[i + 3] + (values[i + 6] - values[i + 3]) * parts[i]))


@njit(cache=True, nogil=True)
def along(source: Any, row: int, x0: int, x1: int, x2: int, x3: int, part: float, channel: int) -> float:
    """The cubic between four columns of one row; `part` 0 is the second column itself."""
    if part == 0.0:
        return float(source[row, x1, channel])
    return cubic(
        float(source[row, x0, channel]), float(source[row, x1, channel]), float(source[row, x2, channel]), float(source[row, x3, channel]), part
    )


@njit(cache=True, nogil=True)
def bicubic(source: Any, image: Any, matrix: Any, fill: Any) -> None:
    """PIL's affine transform of `source` into `image`, (H, W, 3) uint8, by cubics. At the border, PIL repeats the last column and the last value."""
    height, width = source.shape[0], source.shape[1]
    for y in range(height):
        for x in range(width):
            from_x = matrix[0] * (x + 0.5) + matrix[1] * (y + 0.5) + matrix[2]
            from_y = matrix[3] * (x + 0.5) + matrix[4] * (y + 0.5) + matrix[5]
            if from_x < 0.0 or from_x >= width or from_y < 0.0 or from_y >= height:
                for channel in range(3):
                    image[y, x, channel] = fill[channel]
                continue
            left, top = math.floor(from_x - 0.5), math.floor(from_y - 0.5)
            right, down = from_x - 0.5 - left, from_y - 0.5 - top
            left, top = int(left), int(top)
            x0, x1 = min(max(left - 1, 0), width - 1), min(max(left, 0), width - 1)
            x2, x3 = min(max(left + 1, 0), width - 1), min(max(left + 2, 0), width - 1)
            for channel in range(3):
                before = along(source, min(max(top - 1, 0), height - 1), x0, x1, x2, x3, right, channel)
                value = along(source, top, x0, x1, x2, x3, right, channel) if top >= 0 else before
                if down != 0.0:
                    second = along(source, top + 1, x0, x1, x2, x3, right, channel) if top + 1 < height else value
                    after = along(source, top + 2, x0, x1, x2, x3, right, channel) if top + 2 < height else second
                    value = cubic(before, value, second, after, down)
                image[y, x, channel] = np.uint8(min(max(value, 0.0), 255.0))


@njit(cache=True, nogil=True)
def bilinear(source: Any, image: Any, matrix: Any, fill: Any) -> None:
    """PIL's affine transform of `source` into `image`, (H, W, 3) uint8, by lines."""
    height, width = source.shape[0], source.shape[1]
    for y in range(height):
        for x in range(width):
            from_x = matrix[0] * (x + 0.5) + matrix[1] * (y + 0.5) + matrix[2]
            from_y = matrix[3] * (x + 0.5) + matrix[4] * (y + 0.5) + matrix[5]
            if from_x < 0.0 or from_x >= width or from_y < 0.0 or from_y >= height:
                for channel in range(3):
                    image[y, x, channel] = fill[channel]
                continue
            left, top = math.floor(from_x - 0.5), math.floor(from_y - 0.5)
            right, down = from_x - 0.5 - left, from_y - 0.5 - top
            left, top = int(left), int(top)
            x0, x1 = min(max(left, 0), width - 1), min(max(left + 1, 0), width - 1)
            row = min(max(top, 0), height - 1)
            for channel in range(3):
                value = source[row, x0, channel] + (float(source[row, x1, channel]) - source[row, x0, channel]) * right
                if down != 0.0 and top + 1 < height:
                    below = source[top + 1, x0, channel] + (float(source[top + 1, x1, channel]) - source[top + 1, x0, channel]) * right
                    value = value + (below - value) * down
                image[y, x, channel] = np.uint8(value)
