"""One image on its way into a network, by the functions that evaluation uses: the same pixels, without a .beton file."""

from typing import TYPE_CHECKING

import numpy as np

from jobs.data.augment import eval_boxes
from jobs.data.beton import RAW
from jobs.data.decoding import SELECTION, Channels, fill, normalised
from jobs.data.encoding import fitted
from jobs.data.images import orientation, rgb, upright
from jobs.experiment.specs import DataSpec, image_size

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image
    from torch import Tensor


def network_input(image: "Image", data: DataSpec, channels: Channels) -> "Tensor":
    """An image as evaluation gives it to a network, (1, 3, S, S) float32. UnusableImage for colours that cannot be converted to RGB."""
    image.load()
    pixels = upright(rgb(image, str(getattr(image, "filename", "") or "the image")), orientation(image))
    return normalised(evaluated_pixels(pixels, data)[None], channels)


def evaluated_pixels(image: "NDArray[np.uint8]", data: DataSpec) -> "NDArray[np.uint8]":
    """The pixels that evaluation takes of an RGB image, (S, S, 3) from (H, W, 3): what a .beton would hold, cut and resized."""
    size = image_size(data)
    stored = np.ascontiguousarray(fitted(image, size, data.max_resolution))
    rows, pixels = np.zeros(1, SELECTION), np.empty((1, size, size, 3), np.uint8)
    rows["mode"], rows["height"], rows["width"], rows["size"] = RAW, stored.shape[0], stored.shape[1], stored.size
    boxes = eval_boxes(data, size, rows["height"], rows["width"])
    for name in boxes.dtype.names or ():
        rows[name] = boxes[name]
    fill(stored.reshape(-1), rows, pixels, data.interpolation, threads=1)
    return pixels.reshape(size, size, 3)
