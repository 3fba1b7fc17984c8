"""FFCV's loader, fed with selections: its thread, its ring of buffers, its memory map. Images are decoded by `jobs.data.decoding`.

FFCV's own order and random numbers are not used. They come from a selection that is made beforehand (`jobs.data.decoding.SELECTION`): where FFCV
expects a batch of sample numbers, it gets a batch of rows. So epochs share nothing, and the decoder needs no random numbers.
"""

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numba.typed
import numpy as np
import torch
from numpy.typing import NDArray

from jobs.data.augmentation import fill_augmented
from jobs.data.beton import DataError, read_index
from jobs.data.decoding import Interpolation
from jobs.data.row_starts import mapped_starts


@contextmanager
def torch_threads_kept() -> Iterator[None]:
    """Torch has as many threads after the block as before. FFCV sets their number on import."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


# ffcv.fields.rgb_image keeps two constants in a typed.Dict, which takes four seconds to compile at every import. Only plain Python reads them.
with torch_threads_kept(), patch.object(numba.typed, "Dict", dict):
    import ffcv.loader.epoch_iterator as ffcv_epoch
    import ffcv.loader.loader as ffcv_loader
    from ffcv.fields.rgb_image import SimpleRGBImageDecoder
    from ffcv.memory_managers.os_cache import OSCacheContext, OSCacheManager
    from ffcv.pipeline.allocation_query import AllocationQuery
    from ffcv.pipeline.compiler import Compiler
    from ffcv.pipeline.state import State
    from ffcv.reader import Reader


# what replaces FFCV's own parts


class MappedFile(OSCacheManager):  # type: ignore[misc]  # FFCV has no types
    """FFCV's memory map of a file without its tables of all samples. A selection has their content, and on ImageNet they cost seconds and memory."""

    def __init__(self, reader: Reader) -> None:
        self.reader, self.context = reader, OSCacheContext(self)
        self.ptrs = self.sizes = np.empty(0, np.uint64)


ffcv_loader.OSCacheManager = MappedFile
Compiler.set_num_threads = classmethod(lambda compiler, threads: None)  # every pipeline thread calls it, and it would set torch's threads
Compiler.set_enabled(False)  # FFCV then calls our decoder as it is, instead of compiling it
ffcv_epoch.IS_CUDA = False  # no stream or event for each slot of the ring: nothing in the pipeline touches a device


# FFCV's pipeline


class SelectionDecoder(SimpleRGBImageDecoder):  # type: ignore[misc]  # FFCV has no types, and takes no other class for an image field
    """Head of the pipeline: rows of a selection in, (b, img_size, img_size, 3) uint8 out."""

    def __init__(self, path: Path, img_size: int, interpolation: Interpolation, scaled: bool, threads: int) -> None:
        super().__init__()
        self._starts = mapped_starts(path)
        self._shape, self._interpolation, self._scaled, self._threads = (img_size, img_size, 3), interpolation, scaled, threads

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, AllocationQuery]:
        """What FFCV allocates: an image for each row, in each slot of the ring."""
        return replace(previous_state, shape=self._shape, dtype=np.dtype("u1")), AllocationQuery(self._shape, np.dtype("u1"))

    def generate_code(self) -> Callable[[NDArray[np.void], NDArray[np.uint8], Any, tuple[NDArray[Any], ...]], NDArray[np.uint8]]:
        """The function that FFCV calls for each batch."""

        def decode_batch(rows: NDArray[np.void], out: NDArray[np.uint8], metadata: Any, storage: tuple[NDArray[Any], ...]) -> NDArray[np.uint8]:
            fill_augmented(storage[0], rows, out, self._interpolation, self._threads, self._scaled, self._starts)
            return out

        return decode_batch


class Epoch(ffcv_epoch.EpochIterator):  # type: ignore[misc]  # FFCV has no types
    """FFCV's pipeline thread. When it fails, it keeps the error and wakes its reader, which would wait for ever."""

    failure: BaseException | None = None

    def run(self) -> None:
        """Decodes until the selection ends or an image cannot be decoded."""
        try:
            super().run()
        except BaseException as error:
            self.failure = error
            self.output_queue.put(None)

    def stop(self) -> None:
        """Ends and joins the thread. It may be waiting for room in the queue; with room, it sees that no batch is left."""
        self.iter_ixes = iter(())
        self.close()
        while self.is_alive():
            while not self.output_queue.empty():
                self.output_queue.get_nowait()
            self.join(0.01)


class FfcvFeed:
    """`jobs.data.loaders.Feed` through ffcv.loader.Loader."""

    def __init__(
        self, path: Path, *, img_size: int, batch_size: int, threads: int, interpolation: Interpolation = "area", scaled: bool = False
    ) -> None:
        read_index(path)  # FFCV itself would read a damaged file, or crash
        threads = max(1, min(threads, len(os.sched_getaffinity(0))))
        with torch_threads_kept():
            unread = dict.fromkeys(Reader(str(path)).field_names)  # no pipeline: FFCV leaves these fields alone
            self._loader = ffcv_loader.Loader(
                str(path),
                batch_size,
                num_workers=threads,
                os_cache=True,
                drop_last=False,
                pipelines={**unread, "image": [SelectionDecoder(path, img_size, interpolation, scaled, threads)]},
            )
        self._path = path

    def batches(self, selection: NDArray[np.void]) -> Generator[NDArray[np.uint8]]:
        """See `jobs.data.loaders.Feed`."""
        epoch = Epoch(self._loader, selection)
        try:
            for (images,) in epoch:
                yield images
            if epoch.failure is not None:
                raise DataError(f"{self._path}: FFCV's pipeline failed: {epoch.failure}") from epoch.failure
        finally:
            epoch.stop()
