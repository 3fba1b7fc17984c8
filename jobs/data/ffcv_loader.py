"""FFCV's loader, fed with plans: its threads, its ring of buffers, its memory map and its C decoder and resizer.

What FFCV leaves to its users is settled here. Its order and its random numbers are replaced by a plan that is made beforehand
(`jobs.data.prepare.PLAN`): a batch of "sample numbers" is a batch of plan rows, so nothing is shared between epochs and the decoder needs no random
numbers. The decoder is one numba function without a closure, calling C by symbol and not by address: only so does numba's cache on disk serve the next
process.
"""

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
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
def _torch_threads_kept() -> Iterator[None]:
    """FFCV (on import) and numba's OpenMP layer (on start) set torch's number of threads; this sets it back."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


# ffcv.fields.rgb_image keeps two constants in a typed.Dict, which compiles for four seconds at every import; only plain Python reads them
with _torch_threads_kept(), patch.object(numba.typed, "Dict", dict):
    import ffcv.libffcv
    import ffcv.loader.loader as ffcv_loader
    from ffcv.fields.rgb_image import SimpleRGBImageDecoder
    from ffcv.loader.epoch_iterator import EpochIterator
    from ffcv.memory_managers.os_cache import OSCacheContext, OSCacheManager
    from ffcv.pipeline.allocation_query import AllocationQuery
    from ffcv.pipeline.compiler import Compiler
    from ffcv.pipeline.state import State
    from ffcv.reader import Reader


def _set_pipeline_threads(compiler: type[Compiler], threads: int) -> None:
    """Stands in for Compiler.set_num_threads, which every pipeline thread calls and which would set torch's threads as well."""
    compiler.num_threads = threads
    if threads > 1:
        numba.set_num_threads(threads)


class _MappedFile(OSCacheManager):
    """FFCV's memory map of a file without its tables of all samples: a plan has what they say, and on ImageNet they cost seconds and much memory."""

    def __init__(self, reader: Reader) -> None:
        self.reader, self.context = reader, OSCacheContext(self)
        self.ptrs = self.sizes = np.empty(0, np.uint64)


ffcv_loader.OSCacheManager = _MappedFile
Compiler.set_num_threads = classmethod(_set_pipeline_threads)
Compiler.set_enabled(False)  # FFCV then takes our compiled decoder as it is, instead of compiling anew in every process

for _name in ("resize", "imdecode"):
    llvmlite.binding.add_symbol(f"ffcv_{_name}", ctypes.cast(getattr(ffcv.libffcv.lib, _name), ctypes.c_void_p).value)
# unused, source, its height and width, first and last row, first and last column, destination, its height and width
_resize = types.ExternalFunction("ffcv_resize", types.void(*[types.int64] * 11))
# source, its bytes, height, width, destination, cropped height and width, crop offsets, scale as numerator and denominator, crop, flip
_imdecode = types.ExternalFunction(
    "ffcv_imdecode",
    types.int32(types.uintp, types.uint64, types.uint32, types.uint32, types.uintp, *[types.uint32] * 6, types.boolean, types.boolean),
)


@njit(cache=True, nogil=True)
def _boxed(image: Any, row: Any, out: Any) -> None:
    """Fills `out`, (S, S, 3), with the row's box of `image`, (H, W, 3); zero outside of the image."""
    height, width, size = image.shape[0], image.shape[1], out.shape[0]
    top, left, rows, cols = np.int64(row["top"]), np.int64(row["left"]), np.int64(row["rows"]), np.int64(row["cols"])
    if rows == size and cols == size:
        for y in range(size):
            for x in range(size):
                inside = 0 <= top + y < height and 0 <= left + x < width
                for channel in range(3):
                    out[y, x, channel] = image[top + y, left + x, channel] if inside else np.uint8(0)
    elif 0 <= top and 0 <= left and top + rows <= height and left + cols <= width:
        _resize(0, image.ctypes.data, height, width, top, top + rows, left, left + cols, out.ctypes.data, size, size)
    else:
        cut = np.zeros((rows, cols, 3), np.uint8)
        for y in range(max(top, 0), min(top + rows, height)):
            for x in range(max(left, 0), min(left + cols, width)):
                for channel in range(3):
                    cut[y - top, x - left, channel] = image[y, x, channel]
        _resize(0, cut.ctypes.data, rows, cols, 0, rows, 0, cols, out.ctypes.data, size, size)
    if row["flip"]:
        for y in range(size):
            for x in range(size // 2):
                for channel in range(3):
                    out[y, x, channel], out[y, size - 1 - x, channel] = out[y, size - 1 - x, channel], out[y, x, channel]


@njit(cache=True, nogil=True)
def _decode_one(file: Any, row: Any, out: Any) -> int:
    """Fills `out`, (S, S, 3), with one row of a plan; 1 when that row's JPEG is damaged, else 0. file: the bytes of the .beton."""
    content = file[row["ptr"] : row["ptr"] + row["size"]]
    height, width = np.int64(row["height"]), np.int64(row["width"])
    if row["mode"] == JPG:
        image = np.empty((height, width, 3), np.uint8)
        if _imdecode(content.ctypes.data, content.size, height, width, image.ctypes.data, height, width, 0, 0, 1, 1, False, False) != 0:
            return 1
        _boxed(image, row, out)
    else:
        _boxed(content.reshape((height, width, 3)), row, out)
    return 0


@njit(cache=True, nogil=True)
def _decode(file: Any, plan: Any, out: Any) -> int:
    """Number of damaged images among the rows of `plan`; `out`, (b, S, S, 3), has the others."""
    damaged = 0
    for row in range(len(plan)):
        damaged += _decode_one(file, plan[row], out[row])
    return damaged


@njit(cache=True, nogil=True, parallel=True)
def _decode_parallel(file: Any, plan: Any, out: Any) -> int:
    damaged = 0
    for row in prange(len(plan)):
        damaged += _decode_one(file, plan[row], out[row])
    return damaged


_one_parallel_region = threading.Lock()  # numba's workqueue layer aborts the process when two threads enter it


class PlanDecoder(SimpleRGBImageDecoder):  # FFCV takes only a descendant for the decoder of an image field
    """Head of the pipeline: rows of a plan in, (b, img_size, img_size, 3) uint8 out."""

    def __init__(self, img_size: int, threads: int) -> None:
        super().__init__()
        self._shape, self._threads = (img_size, img_size, 3), threads

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, AllocationQuery]:
        """What FFCV allocates: one image a row, for each slot of the ring."""
        return replace(previous_state, shape=self._shape, dtype=np.dtype("u1")), AllocationQuery(self._shape, np.dtype("u1"))

    def generate_code(self) -> Callable:
        """The function that FFCV calls for each batch."""

        def decode(plan: NDArray[np.void], out: NDArray[np.uint8], metadata: Any, storage: tuple[NDArray, ...]) -> NDArray[np.uint8]:
            file = np.asarray(storage[0])
            if self._threads == 1:
                damaged = _decode(file, plan, out)
            else:
                with _one_parallel_region:
                    damaged = _decode_parallel(file, plan, out)
            if damaged:
                raise DataError(f"{damaged} of {len(plan)} JPEGs are damaged: copy or write the file again")
            return out

        return decode


class _Epoch(EpochIterator):
    """FFCV's pipeline thread; one that fails says so instead of leaving its reader waiting for ever."""

    failure: BaseException | None = None

    def run(self) -> None:
        try:
            super().run()
        except BaseException as error:
            self.failure = error
            self.output_queue.put(None)

    def stop(self) -> None:
        """Ends and joins the thread, which may be waiting for room in the queue; given room, it finds no more batches to decode."""
        self.iter_ixes = iter(())
        self.close()
        while self.is_alive():
            while not self.output_queue.empty():
                self.output_queue.get_nowait()
            self.join(0.01)


class FfcvFeed:
    """`jobs.data.prepare.Feed` through ffcv.loader.Loader."""

    def __init__(self, path: Path, *, img_size: int, batch_size: int, threads: int) -> None:
        read_index(path)  # FFCV itself would read a damaged file, or crash
        threads = max(1, min(threads, numba.config.NUMBA_NUM_THREADS))
        with _torch_threads_kept():
            others = {name: None for name in Reader(str(path)).field_names}
            self._loader = ffcv_loader.Loader(
                str(path),
                batch_size,
                num_workers=threads,
                os_cache=True,
                drop_last=False,
                pipelines={**others, "image": [PlanDecoder(img_size, threads)]},
            )
        self._path = path

    def batches(self, plan: NDArray[np.void]) -> Iterator[NDArray[np.uint8]]:
        """See `jobs.data.prepare.Feed`."""
        epoch = _Epoch(self._loader, plan)
        try:
            for (images,) in epoch:
                yield images
            if epoch.failure is not None:
                raise DataError(f"{self._path}: FFCV's pipeline failed: {epoch.failure}") from epoch.failure
        finally:
            epoch.stop()
