"""Images/s of whole networks, as this package composes the kernels and as the official code does."""

from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.gpu.checks import NAMES
from benchmarks.gpu.rows import Row, Values
from benchmarks.gpu.sizes import Sizes

if TYPE_CHECKING:
    from torch import nn

SCANLESS = ("vssd", "vit", "mambaout")  # products and convolutions alone
COMPOSED = ("vim", "mambavision")  # what benchmarks/official.py has


def network_rows(sizes: Sizes) -> list[Row]:
    """A row for each network, dtype and composition."""
    return [
        Row(
            labels={"network": name, "dtype": dtype, "composition": way, "kernels": kernels}, measure=partial(speed, name, dtype, way, backend, sizes)
        )
        for name in sizes.models
        for dtype in sizes.dtypes
        for way, backend, kernels in compositions(name, sizes)
    ]


def compositions(name: str, sizes: Sizes) -> list[tuple[str, str, str]]:
    """(composition, backend, kernels) of a network."""
    if name.startswith(SCANLESS):
        return [("ours", "auto", "torch's own")]
    ours = [("ours", backend, NAMES[backend]) for backend in sizes.backends]
    return [*ours, ("official", "auto", "mamba-ssm")] if name.startswith(COMPOSED) else ours


def network(name: str, dtype: str, way: str, backend: str, batch: int, sizes: Sizes) -> "tuple[nn.Module, Any, Any, Any]":
    """(model, images, labels, optimizer) on the device. Images have channels last, as our loaders give them, but for the official composition.

    Raises ImportError where the official composition has no kernels.
    """
    import torch

    from benchmarks.official import composed_officially, upstream_kernels
    from benchmarks.steps import made

    kernels = upstream_kernels() if way == "official" else None
    wanted = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    model, images, labels, optimizer = made(name, batch, backend, sizes.device, wanted, sizes.img_size)
    if kernels:
        return composed_officially(model, *kernels), images, labels, optimizer
    return model, images.contiguous(memory_format=torch.channels_last), labels, optimizer


def speed(name: str, dtype: str, way: str, backend: str, sizes: Sizes) -> Values:
    """Images/s of training steps and of forward passes, and the memory of a step."""
    import torch

    from benchmarks.steps import step
    from jobs.measure.speed import race
    from jobs.parallel.memory import forget_peak, peak_bytes

    device = torch.device(sizes.device)
    model, images, labels, optimizer = network(name, dtype, way, backend, sizes.batch, sizes)
    step(model, images, labels, optimizer)
    forget_peak(device)
    trained = race({"": partial(step, model, images, labels, optimizer)}, device, sizes.seconds, alone=False)[""]
    peak = peak_bytes(device)
    optimizer.zero_grad(set_to_none=True)
    model.eval()
    with torch.inference_mode():
        inferred = race({"": partial(model, images)}, device, sizes.seconds, alone=False)[""]
    rates = {"training, img/s": sizes.batch / trained.median_s, "inference, img/s": sizes.batch / inferred.median_s}
    return {**rates, "peak of training, GB": peak / 1e9}
