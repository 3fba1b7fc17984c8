"""Batches on their way from a loader's memory to the network's device: as bytes, one batch ahead, normalised where they arrive.

A loader's batch is valid until the next one is asked for. On a CPU, normalising makes the copy, in one pass. For a GPU, a thread copies each batch
into pinned memory before it asks for the next one; from there it crosses on a stream of its own while the network computes, and is normalised on
that stream: fp32, subtraction before division, so equal to the CPU's bits. Images keep the order of their bytes, channels last, which cuDNN wants.
"""

import threading
from collections.abc import Generator
from contextlib import AbstractContextManager, closing
from itertools import cycle
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from jobs.data.decoding import Channels, normalised

if TYPE_CHECKING:
    import torch
    from torch import Tensor

HostBatch = tuple[NDArray[np.uint8], NDArray[np.int64]]  # images (b, S, S, 3) and labels (b,)
T = TypeVar("T")
PINNED_BUFFERS: Final = 3


def delivered(batches: Generator[HostBatch], channels: Channels, device: "torch.device | str") -> Generator[tuple["Tensor", "Tensor"]]:
    """The batches on `device`: normalised images (b, 3, S, S) float32, on a GPU with channels last, and labels (b,) int64. The caller may keep them.

    Leaving early is safe: threads have ended, and `batches` is closed.
    """
    import torch

    device = torch.device(device)
    return carried(batches, channels, CudaLane(device)) if device.type == "cuda" else converted(batches, channels)


def converted(batches: Generator[HostBatch], channels: Channels) -> Generator[tuple["Tensor", "Tensor"]]:
    """`delivered` for a CPU."""
    import torch

    with closing(batches):
        for images, labels in batches:
            yield normalised(images, channels), torch.from_numpy(labels.copy())


def carried(batches: Generator[HostBatch], channels: Channels, lane: "Lane") -> Generator[tuple["Tensor", "Tensor"]]:
    """`delivered` over a lane to a GPU."""
    with closing(one_ahead(sent(batches, channels, lane))) as arriving:
        for images, labels, arrival in arriving:
            lane.hand_over((images, labels), arrival)
            yield images, labels


def sent(batches: Generator[HostBatch], channels: Channels, lane: "Lane") -> Generator[tuple["Tensor", "Tensor", Any]]:
    """Images and labels that are on their way, each with the mark of its arrival. A pinned buffer is filled again after its copies are over."""
    import torch

    with closing(batches), lane.stream():  # from here on, for the thread's current GPU is 0 outside
        buffers = cycle([PinnedBatch(lane) for _ in range(PINNED_BUFFERS)])
        mean, deviation = (lane.copied(255 * torch.tensor(values).view(1, 3, 1, 1)) for values in channels)
        for (pixels, labels), buffer in zip(batches, buffers, strict=False):
            buffer.fill(pixels, labels)
            images, classes = lane.copied(buffer.images), lane.copied(buffer.labels)
            buffer.left = lane.mark()
            images = images.permute(0, 3, 1, 2).to(torch.float32).sub_(mean).div_(deviation)
            yield images, classes, lane.mark()


def one_ahead(items: Generator[T]) -> Generator[T]:
    """The same items, made by a thread that is at most one item ahead of the reader. The thread has ended when this generator has."""
    made: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()
    room, stopped = threading.Semaphore(1), threading.Event()

    def make() -> None:
        try:
            with closing(items):
                while room.acquire() and not stopped.is_set():
                    made.put((next(items), None))
        except BaseException as error:  # StopIteration too: the reader waits for one or the other
            made.put((None, error))

    thread = threading.Thread(target=make, daemon=True, name="batches")
    thread.start()
    try:
        while True:
            item, error = made.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            room.release()
            yield item  # type: ignore[misc]  # None comes with an error alone
    finally:
        stopped.set()
        room.release()
        thread.join()


class PinnedBatch:
    """Pinned memory for one batch, and the mark after the copies out of it."""

    images: "Tensor"
    labels: "Tensor"

    def __init__(self, lane: "Lane") -> None:
        self._lane = lane
        self.left: Any = None
        self._memory: tuple[Tensor, Tensor] | None = None

    def fill(self, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
        """Copies a batch, after the copies out of this memory are over. A last, smaller batch takes part of the memory."""
        if self.left is not None:
            self._lane.wait_for(self.left)
        if self._memory is None or self._memory[0].shape[1:] != images.shape[1:] or len(self._memory[0]) < len(images):
            self._memory = (self._lane.pinned(images), self._lane.pinned(labels))
        self.images, self.labels = (memory[: len(images)] for memory in self._memory)
        np.copyto(self.images.numpy(), images)
        np.copyto(self.labels.numpy(), labels)


class Lane(Protocol):
    """A stream to a device. `mark` gives a point in its work that others can wait for."""

    def stream(self) -> AbstractContextManager[Any]:
        """Work within goes onto the lane."""

    def pinned(self, like: NDArray[Any]) -> "Tensor":
        """Host memory of an array's shape and type that the device can read by itself."""

    def copied(self, tensor: "Tensor") -> "Tensor":
        """The tensor on the device; the host does not wait for it."""

    def mark(self) -> Any:
        """The point after all work so far."""

    def wait_for(self, mark: Any) -> None:
        """The host waits until the device has come to a mark."""

    def hand_over(self, tensors: tuple["Tensor", ...], mark: Any) -> None:
        """The caller's stream waits for a mark, and the memory of `tensors` is kept until that stream is done with them."""


class CudaLane:
    """A `Lane` to one GPU."""

    def __init__(self, device: "torch.device") -> None:
        import torch

        self._device, self._stream = device, torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch gives it no types

    def stream(self) -> AbstractContextManager[Any]:
        """See `Lane`. It also makes the GPU the current one of this thread."""
        import torch

        return torch.cuda.stream(self._stream)

    def pinned(self, like: NDArray[Any]) -> "Tensor":
        """See `Lane`."""
        import torch

        return torch.empty(like.shape, dtype=torch.from_numpy(like[:0]).dtype, pin_memory=True)

    def copied(self, tensor: "Tensor") -> "Tensor":
        """See `Lane`."""
        return tensor.to(self._device, non_blocking=True)

    def mark(self) -> Any:
        """See `Lane`."""
        return self._stream.record_event()

    def wait_for(self, mark: Any) -> None:
        """See `Lane`."""
        mark.synchronize()

    def hand_over(self, tensors: tuple["Tensor", ...], mark: Any) -> None:
        """See `Lane`."""
        import torch

        current = torch.cuda.current_stream(self._device)
        current.wait_event(mark)
        for tensor in tensors:
            tensor.record_stream(current)
