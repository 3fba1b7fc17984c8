"""FFCV's loader, fed with selections: its threads, its ring of buffers, its memory map, its C decoder and its resizer.

FFCV's own order and random numbers are not used. They come from a selection that is made beforehand (`jobs.data.loaders.SELECTION`): where FFCV
expects a batch of sample numbers, it gets a batch of rows. So epochs share nothing, and the decoder needs no random numbers.

The decoder is a numba function without a closure, which calls C by symbol and not by address. Otherwise numba's cache on disk would not serve the
next process.
"""

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import llvmlite.binding
import numba
import numba.typed
import numpy as np
import torch
from numba import njit, prange, types
from numpy.typing import NDArray

from jobs.data.beton import JPG, DataError, read_index


@contextmanager
def torch_threads_kept() -> Iterator[None]:
    """Torch has as many threads after the block as before. FFCV sets their number on import, numba's OpenMP layer on start."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


# ffcv.fields.rgb_image keeps two constants in a typed.Dict, which takes four seconds to compile at every import. Only plain Python reads them.
with torch_threads_kept(), patch.object(numba.typed, "Dict", dict):
    import ffcv.libffcv
    import ffcv.loader.loader as ffcv_loader
    from ffcv.fields.rgb_image import SimpleRGBImageDecoder
    from ffcv.loader.epoch_iterator import EpochIterator
    from ffcv.memory_managers.os_cache import OSCacheContext, OSCacheManager
    from ffcv.pipeline.allocation_query import AllocationQuery
    from ffcv.pipeline.compiler import Compiler
    from ffcv.pipeline.state import State
    from ffcv.reader import Reader


# what replaces FFCV's own parts


def set_pipeline_threads(compiler: type[Compiler], threads: int) -> None:
    """Replaces Compiler.set_num_threads, which every pipeline thread calls and which would set torch's threads as well."""
    compiler.num_threads = threads
    if threads > 1:
        numba.set_num_threads(threads)


class MappedFile(OSCacheManager):  # type: ignore[misc]  # FFCV has no types
    """FFCV's memory map of a file without its tables of all samples. A selection has their content, and on ImageNet they cost seconds and memory."""

    def __init__(self, reader: Reader) -> None:
        self.reader, self.context = reader, OSCacheContext(self)
        self.ptrs = self.sizes = np.empty(0, np.uint64)


ffcv_loader.OSCacheManager = MappedFile
Compiler.set_num_threads = classmethod(set_pipeline_threads)
Compiler.set_enabled(False)  # FFCV then takes our compiled decoder as it is, instead of compiling it anew in every process


# decoding

for _name in ("resize", "imdecode"):
    llvmlite.binding.add_symbol(f"ffcv_{_name}", ctypes.cast(getattr(ffcv.libffcv.lib, _name), ctypes.c_void_p).value)
# cast: numba's hints take an external function for a type
# unused, source, its height and width, first and last row, first and last column, destination, its height and width
resize = cast(Callable[..., None], types.ExternalFunction("ffcv_resize", types.void(*[types.int64] * 11)))
# source, its bytes, height, width, destination, cropped height and width, crop offsets, scale as numerator and denominator, crop, flip
imdecode = cast(
    Callable[..., int],
    types.ExternalFunction(
        "ffcv_imdecode",
        types.int32(types.uintp, types.uint64, types.uint32, types.uint32, types.uintp, *[types.uint32] * 6, types.boolean, types.boolean),
    ),
)


@njit(cache=True, nogil=True)
def copy_box(image: Any, top: np.int64, left: np.int64, out: Any) -> None:
    """Fills `out`, (h, w, 3), with the box of `image`, (H, W, 3), whose corner is at (top, left). Pixels outside of the image are zero."""
    height, width = image.shape[0], image.shape[1]
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            inside = 0 <= top + y < height and 0 <= left + x < width
            for channel in range(3):
                out[y, x, channel] = image[top + y, left + x, channel] if inside else np.uint8(0)


@njit(cache=True, nogil=True)
def mirror(image: Any) -> None:
    """Swaps left and right of `image`, (H, W, 3), in place."""
    width = image.shape[1]
    for y in range(image.shape[0]):
        for x in range(width // 2):
            for channel in range(3):
                image[y, x, channel], image[y, width - 1 - x, channel] = image[y, width - 1 - x, channel], image[y, x, channel]


@njit(cache=True, nogil=True)
def fill_boxed(image: Any, row: Any, out: Any) -> None:
    """Fills `out`, (S, S, 3), with the row's box of `image`, (H, W, 3), resized by area and flipped if the row says so."""
    height, width, size = image.shape[0], image.shape[1], out.shape[0]
    top, left, rows, cols = np.int64(row["top"]), np.int64(row["left"]), np.int64(row["rows"]), np.int64(row["cols"])
    if rows == size and cols == size:
        copy_box(image, top, left, out)
    elif 0 <= top and 0 <= left and top + rows <= height and left + cols <= width:
        resize(0, image.ctypes.data, height, width, top, top + rows, left, left + cols, out.ctypes.data, size, size)
    else:
        cut = np.empty((rows, cols, 3), np.uint8)
        copy_box(image, top, left, cut)
        resize(0, cut.ctypes.data, rows, cols, 0, rows, 0, cols, out.ctypes.data, size, size)
    if row["flip"]:
        mirror(out)


@njit(cache=True, nogil=True)
def decode_row(file: Any, row: Any, out: Any) -> int:
    """Fills `out`, (S, S, 3), with the image of one row. Returns 1 when its JPEG is damaged, else 0. `file`: the bytes of the .beton."""
    content = file[row["ptr"] : row["ptr"] + row["size"]]
    height, width = np.int64(row["height"]), np.int64(row["width"])
    if row["mode"] == JPG:
        image = np.empty((height, width, 3), np.uint8)
        if imdecode(content.ctypes.data, content.size, height, width, image.ctypes.data, height, width, 0, 0, 1, 1, False, False) != 0:
            return 1
        fill_boxed(image, row, out)
    else:
        fill_boxed(content.reshape((height, width, 3)), row, out)
    return 0


@njit(cache=True, nogil=True)
def decode(file: Any, rows: Any, out: Any) -> int:
    """Fills `out`, (b, S, S, 3), with the images of `rows`. Returns the number of damaged images, which are left out."""
    damaged = 0
    for i in range(len(rows)):
        damaged += decode_row(file, rows[i], out[i])
    return damaged


@njit(cache=True, nogil=True, parallel=True)
def decode_parallel(file: Any, rows: Any, out: Any) -> int:
    """`decode` on numba's threads."""
    damaged = 0
    for i in prange(len(rows)):
        damaged += decode_row(file, rows[i], out[i])
    return damaged


one_parallel_region = threading.Lock()  # numba's workqueue layer aborts the process when two threads enter it


# FFCV's pipeline


class SelectionDecoder(SimpleRGBImageDecoder):  # type: ignore[misc]  # FFCV has no types, and takes no other class for an image field
    """Head of the pipeline: rows of a selection in, (b, img_size, img_size, 3) uint8 out."""

    def __init__(self, img_size: int, threads: int) -> None:
        super().__init__()
        self._shape, self._threads = (img_size, img_size, 3), threads

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, AllocationQuery]:
        """What FFCV allocates: an image for each row, in each slot of the ring."""
        return replace(previous_state, shape=self._shape, dtype=np.dtype("u1")), AllocationQuery(self._shape, np.dtype("u1"))

    def generate_code(self) -> Callable[[NDArray[np.void], NDArray[np.uint8], Any, tuple[NDArray[Any], ...]], NDArray[np.uint8]]:
        """The function that FFCV calls for each batch."""

        def decode_batch(rows: NDArray[np.void], out: NDArray[np.uint8], metadata: Any, storage: tuple[NDArray[Any], ...]) -> NDArray[np.uint8]:
            file = np.asarray(storage[0])
            if self._threads == 1:
                damaged = decode(file, rows, out)
            else:
                with one_parallel_region:
                    damaged = decode_parallel(file, rows, out)
            if damaged:
                raise DataError(f"{damaged} of {len(rows)} JPEGs are damaged: copy or write the file again")
            return out

        return decode_batch


class Epoch(EpochIterator):  # type: ignore[misc]  # FFCV has no types
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

    def __init__(self, path: Path, *, img_size: int, batch_size: int, threads: int) -> None:
        read_index(path)  # FFCV itself would read a damaged file, or crash
        threads = max(1, min(threads, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]  # numba sets it at run time
        with torch_threads_kept():
            unread = dict.fromkeys(Reader(str(path)).field_names)  # no pipeline: FFCV leaves these fields alone
            self._loader = ffcv_loader.Loader(
                str(path),
                batch_size,
                num_workers=threads,
                os_cache=True,
                drop_last=False,
                pipelines={**unread, "image": [SelectionDecoder(img_size, threads)]},
            )
        self._path = path

    def batches(self, selection: NDArray[np.void]) -> Iterator[NDArray[np.uint8]]:
        """See `jobs.data.loaders.Feed`."""
        epoch = Epoch(self._loader, selection)
        try:
            for (images,) in epoch:
                yield images
            if epoch.failure is not None:
                raise DataError(f"{self._path}: FFCV's pipeline failed: {epoch.failure}") from epoch.failure
        finally:
            epoch.stop()
