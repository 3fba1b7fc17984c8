"""An image of a source as a .beton holds it."""

import numpy as np
from numpy.typing import NDArray

from jobs.data.beton import PAGE_BYTES, Encoded, encoded
from jobs.data.content import Part
from jobs.data.stored_size import fits, fitted_size, stored_as_jpg, too_large
from jobs.experiment.specs import DataSpec, image_size


def encoded_sample(data: DataSpec, part: Part, sample: int) -> Encoded:
    """An image as the file holds it; that of the network's size is never compressed. UnusableImage where the format cannot hold it."""
    image = part.image(sample)
    rows, columns = image.shape[:2]
    height, width = fitted_size(rows, columns, image_size(data), data.max_resolution)
    jpg = stored_as_jpg(data, height, width)
    if fits(height, width, jpg):
        stored = encoded(fitted(image, image_size(data), data.max_resolution), jpg=jpg)
        if stored.content.size <= PAGE_BYTES:
            return stored
    raise too_large(part.name(sample), rows, columns, data)


def fitted(image: NDArray[np.uint8], img_size: int, max_resolution: int | None) -> NDArray[np.uint8]:
    """`image` at its `fitted_size`: shrunk by area, enlarged by bicubic interpolation."""
    import cv2

    height, width = image.shape[:2]
    size = fitted_size(height, width, img_size, max_resolution)
    if size == (height, width):
        return image
    method = cv2.INTER_AREA if max(size) < max(height, width) else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size[::-1], interpolation=method), np.uint8)
