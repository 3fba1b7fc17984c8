"""A torch DataLoader over a .beton file, for machines without FFCV: the same files and plans, decoded by OpenCV."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from jobs.data.beton import JPG, DataError


class PlannedImages(Dataset):
    """Takes rows of a plan as index and gives their images. The file is mapped when the first is asked for, so a worker maps its own."""

    def __init__(self, path: Path, img_size: int) -> None:
        self._path, self._img_size = path, img_size
        self._bytes: NDArray[np.uint8] | None = None

    def __getitem__(self, plan: NDArray[np.void]) -> torch.Tensor:
        """(b, img_size, img_size, 3) uint8."""
        if self._bytes is None:
            self._bytes = np.memmap(self._path, np.uint8, "r")
        return torch.from_numpy(np.stack([self._image(row) for row in plan]))

    def _image(self, row: np.void) -> NDArray[np.uint8]:
        content = self._bytes[row["ptr"] : row["ptr"] + row["size"]]
        if row["mode"] != JPG:
            return boxed(content.reshape(row["height"], row["width"], 3), row, self._img_size)
        image = cv2.imdecode(content, cv2.IMREAD_COLOR)
        if image is None or image.shape[:2] != (row["height"], row["width"]):
            raise DataError(
                f"{self._path}: damaged: the image at byte {row['ptr']} is no JPEG of {row['width']} x {row['height']}: write the file again"
            )
        return boxed(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), row, self._img_size)


def boxed(image: NDArray[np.uint8], row: np.void, img_size: int) -> NDArray[np.uint8]:
    """(img_size, img_size, 3): the row's box of `image`, zero outside of it, resized by area as FFCV does, then flipped if the row says so."""
    top, left, rows, cols = (int(row[name]) for name in ("top", "left", "rows", "cols"))
    height, width = image.shape[:2]
    cut = np.zeros((rows, cols, 3), np.uint8)
    y, x = slice(max(top, 0), min(top + rows, height)), slice(max(left, 0), min(left + cols, width))
    if y.start < y.stop and x.start < x.stop:
        cut[y.start - top : y.stop - top, x.start - left : x.stop - left] = image[y, x]
    if cut.shape[:2] != (img_size, img_size):
        cut = cv2.resize(cut, (img_size, img_size), interpolation=cv2.INTER_AREA)
    return cut[:, ::-1] if row["flip"] else cut


class _Slices(Sampler):
    """Slices of one plan after the other; the plan is set before each epoch."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self.plan: NDArray[np.void] | None = None

    def __iter__(self) -> Iterator[NDArray[np.void]]:
        for first in range(0, len(self.plan), self._batch_size):
            yield self.plan[first : first + self._batch_size]


class TorchFeed:
    """`jobs.data.prepare.Feed` through torch.utils.data.DataLoader: in this process with one thread, else with `threads` workers that stay alive."""

    def __init__(self, path: Path, *, img_size: int, batch_size: int, threads: int) -> None:
        workers = threads if threads > 1 else 0
        self._slices = _Slices(batch_size)
        # spawn: a fork would copy the thread pools of numba, OpenMP and OpenCV in an unusable state
        self._loader = DataLoader(
            PlannedImages(path, img_size),
            batch_size=None,
            sampler=self._slices,
            num_workers=workers,
            multiprocessing_context="spawn" if workers else None,
            persistent_workers=workers > 0,
        )

    def batches(self, plan: NDArray[np.void]) -> Iterator[NDArray[np.uint8]]:
        """See `jobs.data.prepare.Feed`."""
        self._slices.plan = plan
        for batch in self._loader:
            yield batch.numpy()
