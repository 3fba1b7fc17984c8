"""What a network costs: parameters, multiply-adds, speed and memory, measured on the network that was saved."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jobs.multiply_adds import CONVENTION, count
from models.pruning.masks import collapsed, layer_sparsity, living, sparsity_of


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Costs of one network; fields as in `harness.records.Metrics`."""

    params: int
    params_nonzero: int  # what the masks leave, and every parameter that is never pruned
    sparsity_prunable: float
    sparsity_all: float
    layers: dict[str, float]  # sparsity of each prunable parameter
    collapsed: list[str]
    macs: int
    macs_nonzero: int
    flops_convention: str
    uncounted_ops: dict[str, int]
    throughput_img_per_s: float
    throughput_batch: int
    latency_ms: float
    peak_memory_bytes: int
    notes: list[str]


def profile(
    model: nn.Module, *, img_size: int, masks: Mapping[str, Tensor], threads: int, batch_size: int = 32, min_s: float = 0.5
) -> Profile:
    """Costs of `model` under `masks`, on the device where it is. `min_s`: time given to each measurement, in seconds.

    ValueError: a mask without its parameter, a weight that its mask drops and that is not zero, a heavy operation that nothing counts.
    """
    check_zeros(model, masks)
    params = sum(parameter.numel() for parameter in model.parameters())
    dropped = sum(mask.numel() - living(mask) for mask in masks.values())
    costs = count(model, img_size=img_size, masks=masks)
    speed = measure(model, img_size=img_size, threads=threads, batch_size=batch_size, min_s=min_s)
    return Profile(
        params=params,
        params_nonzero=params - dropped,
        sparsity_prunable=sparsity_of(masks),
        sparsity_all=dropped / params,
        layers=layer_sparsity(masks),
        collapsed=collapsed(masks),
        macs=costs.macs,
        macs_nonzero=costs.macs_nonzero,
        flops_convention=CONVENTION,
        uncounted_ops=costs.uncounted_ops,
        throughput_batch=batch_size,
        **speed,
    )


def check_zeros(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Raises ValueError unless every weight that a mask drops is exactly zero in the model."""
    parameters = dict(model.named_parameters())
    for name, mask in masks.items():
        if name not in parameters or parameters[name].shape != mask.shape:
            raise ValueError(f"a mask of shape {tuple(mask.shape)} is named '{name}', and the model has no such parameter")
        stray = int(torch.count_nonzero(parameters[name].detach()[~mask.to(parameters[name].device)]))
        if stray:
            raise ValueError(f"{stray} weights of '{name}' are not zero although its mask drops them: the masks are not those of this model")


def measure(model: nn.Module, *, img_size: int, threads: int, batch_size: int, min_s: float) -> dict[str, Any]:
    """Throughput, latency and peak memory of inference on the model's device, as fields of `Profile`."""
    parameter = next(model.parameters())
    was_training = model.training
    model.eval()
    with torch.inference_mode(), torch_threads(threads):
        images = torch.zeros(batch_size, 3, img_size, img_size, device=parameter.device, dtype=parameter.dtype)
        latency_s = median_s(lambda: model(images[:1]), parameter.device, min_s)
        note = forget_peak(parameter.device)
        batch_s = median_s(lambda: model(images), parameter.device, min_s)
        peak = peak_bytes(parameter.device)
    model.train(was_training)
    return {"throughput_img_per_s": batch_size / batch_s, "latency_ms": 1e3 * latency_s, "peak_memory_bytes": peak, "notes": [note]}


def median_s(run: Callable[[], object], device: torch.device, min_s: float) -> float:
    """Median time of a call in seconds, after one that warms up, over at least three calls and `min_s` seconds."""
    timed(run, device)
    times: list[float] = []
    while len(times) < 3 or sum(times) < min_s:
        times.append(timed(run, device))
    return statistics.median(times)


def timed(run: Callable[[], object], device: torch.device) -> float:
    """Seconds that a call takes, the device's queue drained before and after."""
    synchronise(device)
    start = time.perf_counter()
    run()
    synchronise(device)
    return time.perf_counter() - start


def synchronise(device: torch.device) -> None:
    """Waits for the device; a CPU has nothing in flight."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Torch with so many threads inside the block, and with as many as before after it."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def forget_peak(device: torch.device) -> str:
    """Starts the peak of memory anew and says what will be measured; where Linux forbids it, the peak is that of the process's whole life."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return "peak memory: allocated on the GPU, inference"
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return "peak memory: resident set of the process over its whole life"
    return "peak memory: resident set of the process, inference"


def peak_bytes(device: torch.device) -> int:
    """The peak since `forget_peak`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in status if line.startswith("VmHWM")).split()[1])
