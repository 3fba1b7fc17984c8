"""The size at which a .beton file stores an image, and images that it cannot hold. Arithmetic alone: no image is read."""

import math
from typing import Final

from jobs.data.beton import PAGE_BYTES
from jobs.data.faults import UnusableImage
from jobs.experiment.specs import DataSpec, image_size

LONGEST_RAW: Final = 65535  # pixels of one side, by FFCV's format
LONGEST_JPG: Final = 65500  # by libjpeg


def fitted_size(height: int, width: int, img_size: int, max_resolution: int | None) -> tuple[int, int]:
    """Height and width with the longer side shrunk to max_resolution, then the shorter side enlarged to img_size, where they need it."""
    scale = min(1.0, (max_resolution or max(height, width)) / max(height, width))
    scale = max(scale, img_size / min(height, width)) if min(height, width) * scale < img_size else scale
    return (height, width) if scale == 1.0 else (max(round(height * scale), img_size), max(round(width * scale), img_size))


def stored_as_jpg(data: DataSpec, height: int, width: int) -> bool:
    """True if an image of this size is compressed; that of the network's size never is."""
    return data.write_mode == "jpg" and (height, width) != (image_size(data), image_size(data))


def fits(height: int, width: int, jpg: bool) -> bool:
    """True where the format holds an image of this size; a JPEG's bytes are counted once they are there."""
    return max(height, width) <= LONGEST_JPG if jpg else max(height, width) <= LONGEST_RAW and 3 * height * width <= PAGE_BYTES


def too_large(name: str, rows: int, columns: int, data: DataSpec) -> UnusableImage:
    """The error for an image of this size that the format cannot hold."""
    img_size = image_size(data)
    height, width = fitted_size(rows, columns, img_size, data.max_resolution)
    return UnusableImage(
        name,
        fault=f"too large for a .beton file at {img_size} pixels",
        detail=f"{columns} x {rows}, stored as {width} x {height}",
        remedy=smaller(rows, columns, img_size, stored_as_jpg(data, height, width)),
    )


def smaller(height: int, width: int, img_size: int, jpg: bool) -> str:
    """The advice for an image that the format cannot hold."""
    square = math.isqrt(PAGE_BYTES // 3)  # the largest raw image
    if img_size <= square and fits(*fitted_size(height, width, img_size, square), jpg=False):
        other = "" if jpg else ", or data.write_mode: jpg"
        return f"set data.max_resolution to at most {square}{other}"
    if not jpg and fits(*fitted_size(height, width, img_size, None), jpg=True):
        return "set data.write_mode: jpg"
    ratio = min(PAGE_BYTES // (3 * img_size**2), LONGEST_RAW // img_size)
    return f"crop or remove {{it}}: its longer side can be {ratio} times the shorter" if ratio else "lower data.img_size"
