"""Batches to a device: what arrives, in which sequence of calls, and what is left when a reader leaves early. The lane to a GPU is an imitation."""

import threading
from collections import Counter
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.data.beton import DataError
from jobs.data.decoding import normalised
from jobs.data.delivery import PINNED_BUFFERS, CudaLane, carried, delivered, one_ahead
from jobs.experiment.sources import IMAGENET_MEAN, IMAGENET_STD
from models.registry import MODELS, create_model
from tests.support.waiting import wait_until

IMAGENET = (IMAGENET_MEAN, IMAGENET_STD)


class Ring:
    """A loader with one buffer: a batch is overwritten when the next one is asked for, as in FFCV's ring at worst."""

    def __init__(self, sizes, fails_at=None):
        self.sizes, self.fails_at, self.asked, self.closed = sizes, fails_at, 0, False

    def image(self, number, size):
        return np.random.default_rng(number).integers(0, 256, (size, 4, 4, 3), dtype=np.uint8)

    def batches(self):
        buffer = np.empty((max(self.sizes, default=1), 4, 4, 3), np.uint8)
        try:
            for number, size in enumerate(self.sizes):
                self.asked = number + 1
                if number == self.fails_at:
                    raise DataError("damaged")
                buffer[:size] = self.image(number, size)
                yield buffer[:size], np.full(size, number)
                buffer[:] = 0
        finally:
            self.closed = True

    def expected(self):
        return [(normalised(self.image(number, size), IMAGENET), number) for number, size in enumerate(self.sizes)]


class Late:
    """A lane whose copies happen as late as they may: when somebody waits for a mark behind them. It notes every call."""

    def __init__(self):
        self.calls, self.pending, self.done, self.on_stream, self.pinned_memory = [], [], 0, False, []

    @contextmanager
    def stream(self):
        self.on_stream = True
        yield
        self.on_stream = False

    def pinned(self, like):
        assert self.on_stream, "outside, a thread's current GPU is the first of the node"
        memory = torch.zeros(like.shape, dtype=torch.from_numpy(like).dtype)
        self.pinned_memory.append(memory.untyped_storage().data_ptr())
        return memory

    def copied(self, tensor):
        assert self.on_stream
        target = tensor.clone()
        self.calls.append(("copy", tensor.untyped_storage().data_ptr()))
        self.pending.append((tensor, target.clone(), target))
        return target

    def mark(self):
        self.calls.append(("mark", len(self.pending)))
        return len(self.pending)

    def _come_to(self, mark):
        for source, at_call, _ in self.pending[self.done : mark]:
            assert torch.equal(source, at_call), "pinned memory changed before it was copied"
        self.done = max(self.done, mark)

    def wait_for(self, mark):
        self.calls.append(("wait", mark))
        self._come_to(mark)

    def hand_over(self, tensors, mark):
        self.calls.append(("hand over", mark))
        self._come_to(mark)


def check(received, expected):
    for (images, labels), (wanted, number) in zip(received, expected, strict=True):
        assert torch.equal(images, wanted) and labels.tolist() == [number] * len(wanted)


def test_on_a_cpu_batches_outlive_the_loaders_buffer():
    ring = Ring([3, 3, 2])
    check(list(delivered(ring.batches(), IMAGENET, "cpu")), ring.expected())
    assert ring.closed


@pytest.mark.parametrize("sizes", [[], [1], [3, 3, 3, 3, 3, 3, 3, 1], [2, 3, 1, 4]])
def test_over_a_lane_the_same_bits_arrive_with_channels_last(sizes):
    ring, lane, before = Ring(sizes), Late(), threading.active_count()
    received = list(carried(ring.batches(), IMAGENET, lane))
    check(received, ring.expected())
    assert all(images.is_contiguous(memory_format=torch.channels_last) for images, _ in received)
    assert ring.closed and threading.active_count() == before


def test_a_pinned_buffer_is_filled_again_only_after_the_copies_out_of_it():
    ring, lane = Ring([2] * 9), Late()
    batches = carried(ring.batches(), IMAGENET, lane)
    for _ in range(9):
        next(batches)
    batches.close()
    sources = [address for call, address in lane.calls if call == "copy"][2:]  # the first two are mean and deviation
    images = sources[::2]
    assert len(set(images)) == PINNED_BUFFERS and images == (images[:PINNED_BUFFERS] * 3)
    waits = [mark for call, mark in lane.calls if call == "wait"]
    assert waits == [4 + 2 * number for number in range(9 - PINNED_BUFFERS)], "each refill waits for its own buffer's copies, and for no later ones"


def test_a_batch_crosses_while_the_one_before_is_used_and_no_further_one_is_asked_for():
    ring, lane = Ring([2] * 6), Late()
    batches = carried(ring.batches(), IMAGENET, lane)
    for number in range(1, 5):
        next(batches)
        wait_until(lambda number=number: ring.asked == number + 1, "the next batch to be asked for")
        threading.Event().wait(0.01)  # for one too many, if there were one
        assert ring.asked == number + 1
    batches.close()
    assert ring.closed


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(1, 4), max_size=7), left_after=st.integers(0, 8), fails_at=st.none() | st.integers(0, 6))
def test_leaving_early_and_failures_leave_no_thread_and_lose_no_batch_before(sizes, left_after, fails_at):
    before = set(threading.enumerate())
    ring = Ring(sizes, fails_at)
    batches, received, failed = carried(ring.batches(), IMAGENET, Late()), [], False
    try:
        for batch in batches:
            received.append(batch)
            if len(received) == left_after:
                break
    except DataError:
        failed = True
    batches.close()
    available = len(sizes) if fails_at is None else min(fails_at, len(sizes))
    assert len(received) == (min(left_after, available) if left_after else available)
    assert failed == (fails_at is not None and fails_at < len(sizes) and (left_after == 0 or left_after > available))
    check(received, ring.expected()[: len(received)])
    assert set(threading.enumerate()) <= before and ring.closed  # threads of other tests may end meanwhile


def test_a_generator_that_was_never_read_starts_no_thread():
    before = set(threading.enumerate())
    one_ahead(iter(())).close()
    assert set(threading.enumerate()) <= before


class Event:
    def __init__(self, calls):
        self.calls = calls

    def synchronize(self):
        self.calls.append("host waits")


class Stream:
    """Stands for torch.cuda.Stream, whose methods it must have."""

    def __init__(self, calls, device=None):
        self.calls = calls

    def record_event(self):
        return Event(self.calls)

    def wait_event(self, event):
        self.calls.append("network's stream waits")


def test_the_lane_to_a_gpu_makes_the_network_wait_and_keeps_its_memory(monkeypatch):
    calls, empty, ring = [], torch.empty, Ring([2] * 5)
    expected = ring.expected()
    assert all(hasattr(torch.cuda.Stream, name) for name in vars(Stream) if not name.startswith("__")) and hasattr(torch.cuda.Event, "synchronize")
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(calls, device))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream(calls))
    monkeypatch.setattr(torch, "empty", lambda shape, dtype, pin_memory: calls.append("pinned") or empty(shape, dtype=dtype))
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: calls.append("kept"))
    lane = CudaLane(torch.device("cpu"))
    lane.copied = torch.Tensor.clone
    check(list(carried(ring.batches(), IMAGENET, lane)), expected)
    counts = Counter(calls)
    assert counts == {"pinned": 2 * PINNED_BUFFERS, "host waits": 2, "network's stream waits": 5, "kept": 10}


@pytest.mark.parametrize("name", sorted(name for name in MODELS if "micro" in name))
def test_every_kind_of_network_takes_images_with_channels_last(name):
    torch.manual_seed(0)
    network, images = create_model(name, 10, 32).eval(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(network(images.contiguous(memory_format=torch.channels_last)), network(images), rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_on_a_gpu_the_bits_are_those_of_the_cpu():
    ring = Ring([3, 3, 3, 3, 3, 1])
    received = [(images.cpu(), labels.cpu()) for images, labels in delivered(ring.batches(), IMAGENET, "cuda")]
    check(received, ring.expected())
