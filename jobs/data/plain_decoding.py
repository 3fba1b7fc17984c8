"""What `jobs.data.decoding` does where its C++ library is not built: whole images by OpenCV, one after the other, resized by OpenCV or PIL."""

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jobs.data.beton import JPG
from jobs.data.decoding import Interpolation, damaged_image

cv2.setNumThreads(1)  # threads and processes above call it side by side
PIL_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def fill_plainly(content: NDArray[np.uint8], rows: NDArray[np.void], out: NDArray[np.uint8], interpolation: Interpolation) -> None:
    """See `jobs.data.decoding.fill`."""
    for row, image in zip(rows, out, strict=True):
        image[:] = boxed(decoded(content[row["ptr"] : row["ptr"] + row["size"]], row), row, out.shape[1], interpolation)


def decoded(content: NDArray[np.uint8], row: np.void) -> NDArray[np.uint8]:
    """The whole image of one row, (H, W, 3) RGB; `content`: its bytes. DataError: it is no JPEG of the row's size."""
    if row["mode"] != JPG:
        return content.reshape(row["height"], row["width"], 3)
    image = cv2.imdecode(content, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)  # libjpeg reads no EXIF either
    if image is None or image.shape[:2] != (row["height"], row["width"]):
        raise damaged_image(row)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def boxed(image: NDArray[np.uint8], row: np.void, img_size: int, interpolation: Interpolation = "area") -> NDArray[np.uint8]:
    """The row's box of `image`, (img_size, img_size, 3): zero outside of the image, resized, then flipped if the row says so."""
    box = tuple(int(row[name]) for name in ("top", "left", "rows", "cols"))
    if row["whole"]:
        shown = cut(resized(image, box[2], box[3], interpolation), box[0], box[1], img_size, img_size)
    else:
        shown = resized(cut(image, *box), img_size, img_size, interpolation)
    return shown[:, ::-1] if row["flip"] else shown


def cut(image: NDArray[np.uint8], top: int, left: int, rows: int, cols: int) -> NDArray[np.uint8]:
    """The pixels of a box, (rows, cols, 3), zero outside of the image."""
    box: NDArray[np.uint8] = np.zeros((rows, cols, 3), np.uint8)
    y, x = slice(max(top, 0), min(top + rows, image.shape[0])), slice(max(left, 0), min(left + cols, image.shape[1]))
    if y.start < y.stop and x.start < x.stop:
        box[y.start - top : y.stop - top, x.start - left : x.stop - left] = image[y, x]
    return box


def resized(image: NDArray[np.uint8], rows: int, cols: int, interpolation: Interpolation) -> NDArray[np.uint8]:
    """`image` as (rows, cols, 3). PIL's two passes go one by one, the horizontal one first: Pillow 13 may otherwise change their order."""
    if image.shape[:2] == (rows, cols):
        return image
    if interpolation == "area":
        return np.asarray(cv2.resize(image, (cols, rows), interpolation=cv2.INTER_AREA), np.uint8)
    kind = PIL_FILTERS[interpolation]
    return np.asarray(Image.fromarray(image).resize((cols, image.shape[0]), kind).resize((cols, rows), kind))
