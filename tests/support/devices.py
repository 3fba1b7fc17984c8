"""The device of this machine, as a parameter of tests whose body is the same on a CPU and on a GPU. `pytest -m gpu` takes those of a GPU alone."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

GPU = torch.cuda.is_available()
HERE = pytest.mark.skipif(GPU, reason="the engine takes the GPU of this machine")
THERE = [pytest.mark.gpu, pytest.mark.skipif(not GPU, reason="no GPU here")]
on_this_device = pytest.mark.parametrize("device", [pytest.param("cpu", marks=HERE), pytest.param("cuda", marks=THERE)])


def with_variants(on_cpu: Sequence[str], on_gpu: Sequence[str]) -> pytest.MarkDecorator:
    """`on_this_device`, with the variants of networks that a test runs on each."""
    pairs = [pytest.param("cpu", name, marks=HERE) for name in on_cpu] + [pytest.param("cuda", name, marks=THERE) for name in on_gpu]
    return pytest.mark.parametrize(("device", "variant"), pairs)


def set_backend(model: nn.Module, backend: str) -> nn.Module:
    """The model, whose scans and convolutions run by a backend from now on."""
    for module in model.modules():
        for name in {"backend", "scan_backend"} & vars(module).keys():
            setattr(module, name, backend)
    return model


class NoReads(TorchDispatchMode):
    """Refuses whatever makes the host read a number from a tensor."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        assert function._schema.name not in ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal"), "the host waits for the device"
        return function(*args, **(kwargs or {}))


@contextmanager
def without_waiting(device: str) -> Iterator[None]:
    """Fails if the host waits for the device: CUDA itself says so on a GPU; on a CPU each read of a number counts."""
    if device == "cpu":
        with NoReads():
            yield
        return
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
