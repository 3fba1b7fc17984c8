"""The processes of this machine that write a data set. They are forked, so that they share the list of images, and end with the process that forked
them."""

import ctypes
import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Final

from jobs.data.beton import DataError

if TYPE_CHECKING:
    from jobs.data.writing import Writer

REPORT_S: Final = 1.0  # between two reports
PR_SET_PDEATHSIG: Final = 1  # of prctl(2)

FORK: Final = multiprocessing.get_context("fork")
_writer: "Writer | None" = None  # of the process that forks; its workers inherit it
_encoded = FORK.Value("q", 0)  # images
_stop = FORK.Value("b", 0)  # 1: workers are to end


def in_processes(writer: "Writer", workers: int) -> None:
    """Writes every shard that is free, by `workers` processes. Raises what the first of them raised, and DataError if one of them was killed."""
    before, _encoded.value, _stop.value = writer.encoded_images(), 0, 0
    writer.tell(before)
    parent = os.getpid()
    with ProcessPoolExecutor(workers, mp_context=FORK, initializer=begin, initargs=(writer, parent)) as pool:
        futures = {pool.submit(take_shards) for _ in range(workers)}
        try:
            while futures:
                done, futures = wait(futures, timeout=REPORT_S, return_when=FIRST_COMPLETED)
                writer.tell(max(before + _encoded.value, writer.encoded_images()), _encoded.value)
                for future in done:
                    raise_killed(future.result)
        except BaseException:
            _stop.value = 1
            raise


def raise_killed(result: Callable[[], None]) -> None:
    """Calls `result`. DataError if a worker was killed."""
    try:
        result()
    except BrokenProcessPool as error:
        raise DataError(
            "a process that wrote data was killed, perhaps for want of memory: run the same command again, which goes on from what is written, "
            "or give fewer --workers"
        ) from error


def begin(writer: "Writer", parent: int) -> None:
    """Makes this process a worker: it dies with its parent, and leaves threads to the other workers."""
    global _writer
    import cv2

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it had ended before it was watched
        os._exit(1)
    cv2.setNumThreads(1)
    _writer = writer


def take_shards() -> None:
    """Writes free shards until there is none."""
    assert _writer is not None
    _writer.take_shards(count)


class Stopped(Exception):
    """Another worker has failed, or the user has interrupted the command."""


def count(images: int) -> None:
    """Counts images that this worker has encoded. Raises Stopped when workers are to end."""
    if _stop.value:
        raise Stopped
    with _encoded.get_lock():
        _encoded.value += images
