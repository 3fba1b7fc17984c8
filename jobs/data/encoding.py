"""An image of a source as a .beton holds it.

A JPEG that need not be resized, turned or converted keeps its own bytes: compressing it again would cost quality and time.
"""

from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from jobs.data.beton import JPG, PAGE_BYTES, DataError, Encoded, encoded
from jobs.data.content import Part
from jobs.data.decoding import SELECTION, fill, library, row_starts
from jobs.data.images import orientation
from jobs.data.stored_size import fits, fitted_size, stored_as_jpg, too_large
from jobs.experiment.specs import DataSpec, image_size


def encoded_sample(data: DataSpec, part: Part, sample: int) -> Encoded:
    """An image as the file holds it; that of the network's size is never compressed. UnusableImage where the format cannot hold it."""
    if data.write_mode == "jpg" and part.content is not None and (kept := kept_jpeg(part.content(sample), data)):
        return kept
    image = part.image(sample)
    rows, columns = image.shape[:2]
    height, width = fitted_size(rows, columns, image_size(data), data.max_resolution)
    jpg = stored_as_jpg(data, height, width)
    if fits(height, width, jpg):
        stored = encoded(fitted(image, image_size(data), data.max_resolution), jpg=jpg)
        if stored.content.size <= PAGE_BYTES:
            return stored
    raise too_large(part.name(sample), rows, columns, data)


def kept_jpeg(content: bytes, data: DataSpec) -> Encoded | None:
    """An image file as it is; None unless it is a whole JPEG in three colours, upright, and stored in its own size."""
    from PIL import Image

    try:
        with Image.open(BytesIO(content), formats=["JPEG"]) as image:
            height, width, plain = image.height, image.width, image.format == "JPEG" and image.mode == "RGB" and orientation(image) == 1
    except Exception:  # the decoder of all formats says what is wrong with it
        return None
    same_size = fitted_size(height, width, image_size(data), data.max_resolution) == (height, width)
    if not (plain and same_size and stored_as_jpg(data, height, width) and fits(height, width, jpg=True)) or len(content) > PAGE_BYTES:
        return None
    kept = np.frombuffer(content, np.uint8)
    starts = row_starts(kept)  # a pass over all codes, which finds damage
    if len(starts) == 0 and not is_whole(content, height, width):
        return None
    return Encoded(mode=JPG, height=height, width=width, content=kept, starts=starts)


def is_whole(content: bytes, height: int, width: int) -> bool:
    """True if the loaders' decoder finds no damage in a JPEG. Where its library is not built, Pillow decodes."""
    if library() is None:
        return pillow_decodes(content)
    row = np.zeros(1, SELECTION)
    row["size"], row["mode"], row["height"], row["width"], row["rows"], row["cols"] = len(content), JPG, height, width, height, width
    side = max(1, min(height, width) // 8)  # at an eighth of the size all bytes are read, and few pixels made
    try:
        fill(np.frombuffer(content, np.uint8), row, np.empty((1, side, side, 3), np.uint8), "area", threads=1, scaled=True)
    except DataError:
        return False
    return True


def pillow_decodes(content: bytes) -> bool:
    """True if Pillow decodes a JPEG."""
    from PIL import Image

    try:
        with Image.open(BytesIO(content), formats=["JPEG"]) as image:
            image.load()
    except Exception:  # a damaged file makes Pillow raise nearly anything
        return False
    return True


def fitted(image: NDArray[np.uint8], img_size: int, max_resolution: int | None) -> NDArray[np.uint8]:
    """`image` at its `fitted_size`: shrunk by area, enlarged by bicubic interpolation."""
    import cv2

    height, width = image.shape[:2]
    size = fitted_size(height, width, img_size, max_resolution)
    if size == (height, width):
        return image
    method = cv2.INTER_AREA if max(size) < max(height, width) else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size[::-1], interpolation=method), np.uint8)
