"""A torch DataLoader over a .beton file, for machines without FFCV. It reads the same files and selections, and decodes with OpenCV."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from jobs.data.beton import JPG, DataError


class SelectedImages(Dataset[torch.Tensor]):
    """Takes rows of a selection as index and gives their images. The file is mapped on first use, so every worker maps its own."""

    def __init__(self, path: Path, img_size: int) -> None:
        self._path, self._img_size = path, img_size
        self._bytes: NDArray[np.uint8] | None = None

    def __getitem__(self, rows: NDArray[np.void]) -> torch.Tensor:
        """The images of `rows`, (b, img_size, img_size, 3) uint8."""
        if self._bytes is None:
            self._bytes = np.memmap(self._path, np.uint8, "r")
        content = self._bytes
        return torch.from_numpy(np.stack([self._image(content[row["ptr"] : row["ptr"] + row["size"]], row) for row in rows]))

    def _image(self, content: NDArray[np.uint8], row: np.void) -> NDArray[np.uint8]:
        """The decoded box of one row; `content`: the bytes of its image."""
        if row["mode"] != JPG:
            return boxed(content.reshape(row["height"], row["width"], 3), row, self._img_size)
        image = cv2.imdecode(content, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)  # as FFCV, which reads no EXIF
        if image is None or image.shape[:2] != (row["height"], row["width"]):
            raise DataError(
                f"{self._path}: damaged: the image at byte {row['ptr']} is no JPEG of {row['width']} x {row['height']}: write the file again"
            )
        return boxed(np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8), row, self._img_size)


def boxed(image: NDArray[np.uint8], row: np.void, img_size: int) -> NDArray[np.uint8]:
    """The row's box of `image`, (img_size, img_size, 3): zero outside of the image, resized by area as FFCV does, then flipped if the row says so."""
    top, left, rows, cols = (int(row[name]) for name in ("top", "left", "rows", "cols"))
    height, width = image.shape[:2]
    cut: NDArray[np.uint8] = np.zeros((rows, cols, 3), np.uint8)
    y, x = slice(max(top, 0), min(top + rows, height)), slice(max(left, 0), min(left + cols, width))
    if y.start < y.stop and x.start < x.stop:
        cut[y.start - top : y.stop - top, x.start - left : x.stop - left] = image[y, x]
    if cut.shape[:2] != (img_size, img_size):
        cut = np.asarray(cv2.resize(cut, (img_size, img_size), interpolation=cv2.INTER_AREA), np.uint8)
    return cut[:, ::-1] if row["flip"] else cut


class SelectionBatches(Sampler[NDArray[np.void]]):
    """Batches of a selection, one after the other. The selection is set before each epoch."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.selection: NDArray[np.void] = np.empty(0, np.void)

    def __iter__(self) -> Iterator[NDArray[np.void]]:
        for first in range(0, len(self.selection), self.batch_size):
            yield self.selection[first : first + self.batch_size]


class TorchFeed:
    """`jobs.data.loaders.Feed` through torch.utils.data.DataLoader.

    With one thread, this process decodes; with more, as many workers do, and they live as long as the feed.
    """

    def __init__(self, path: Path, *, img_size: int, batch_size: int, threads: int) -> None:
        workers = threads if threads > 1 else 0
        self._batches = SelectionBatches(batch_size)
        # spawn: a fork would copy the thread pools of numba, OpenMP and OpenCV in an unusable state
        self._loader = DataLoader(
            SelectedImages(path, img_size),
            batch_size=None,
            sampler=self._batches,
            num_workers=workers,
            multiprocessing_context="spawn" if workers else None,
            persistent_workers=workers > 0,
        )

    def batches(self, selection: NDArray[np.void]) -> Iterator[NDArray[np.uint8]]:
        """See `jobs.data.loaders.Feed`."""
        self._batches.selection = selection
        for batch in self._loader:
            yield batch.numpy()
