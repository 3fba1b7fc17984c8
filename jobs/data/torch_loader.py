"""A torch DataLoader over a .beton file, for machines without FFCV. It reads the same files and selections, and decodes with the same functions."""

from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from jobs.data.augmentation import fill_augmented
from jobs.data.beton import DataError
from jobs.data.decoding import Interpolation
from jobs.data.row_starts import mapped_starts


class SelectedImages(Dataset[torch.Tensor]):
    """Takes rows of a selection as index and gives their images. The files are mapped on first use, so every worker maps its own."""

    def __init__(self, path: Path, img_size: int, interpolation: Interpolation, scaled: bool) -> None:
        self._path, self._img_size, self._interpolation, self._scaled = path, img_size, interpolation, scaled
        self._bytes: NDArray[np.uint8] | None = None
        self._starts: NDArray[np.uint8] | None = None

    def __getitem__(self, rows: NDArray[np.void]) -> torch.Tensor:
        """The images of `rows`, (b, img_size, img_size, 3) uint8."""
        if self._bytes is None:
            self._bytes, self._starts = np.memmap(self._path, np.uint8, "r"), mapped_starts(self._path)
        images = np.empty((len(rows), self._img_size, self._img_size, 3), np.uint8)
        try:
            fill_augmented(self._bytes, rows, images, self._interpolation, 1, self._scaled, self._starts)
        except DataError as error:
            raise DataError(f"{self._path}: {error}") from error
        return torch.from_numpy(images)


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

    def __init__(
        self, path: Path, *, img_size: int, batch_size: int, threads: int, interpolation: Interpolation = "area", scaled: bool = False
    ) -> None:
        workers = threads if threads > 1 else 0
        self._batches = SelectionBatches(batch_size)
        # spawn: a fork would copy the thread pools of numba, OpenMP and OpenCV in an unusable state
        self._loader = DataLoader(
            SelectedImages(path, img_size, interpolation, scaled),
            batch_size=None,
            sampler=self._batches,
            num_workers=workers,
            multiprocessing_context="spawn" if workers else None,
            persistent_workers=workers > 0,
        )

    def batches(self, selection: NDArray[np.void]) -> Generator[NDArray[np.uint8]]:
        """See `jobs.data.loaders.Feed`."""
        self._batches.selection = selection
        for batch in self._loader:
            yield batch.numpy()
