"""What a network costs: parameters, multiply-adds, speed, memory and energy, measured on the network that was saved."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from jobs.measure.energy import Meter
from jobs.measure.multiply_adds import CONVENTION, count
from jobs.measure.sparse_kernels import patterned, semi_structured_speedup
from jobs.measure.speed import FASTER, Timing, clock_mhz, protocol, race, speedup, speedups
from jobs.measure.uncounted import WORTH_A_NOTE
from jobs.parallel.memory import forget_peak, peak_bytes
from models.pruning.masks import living

ENERGY_S = 1.0  # of batches one after the other, over which joules are read: counters tick every tenth of a second


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Costs of one network; fields as in `jobs.experiment.records.Metrics`."""

    params: int
    params_dense: int
    params_nonzero: int  # what masks leave, and every parameter that is never pruned
    sparsity_prunable: float
    sparsity_all: float
    layers: dict[str, float]  # sparsity of each prunable parameter
    collapsed: list[str]
    macs: int
    macs_structural: int
    macs_nonzero: int
    flops_convention: str
    uncounted_ops: dict[str, int]
    uncounted_share: float
    speed_protocol: str
    clock_mhz: float | None
    throughput_img_per_s: float
    throughput_batch: int
    latency_ms: float
    latency_p90_ms: float | None
    latency_p99_ms: float | None
    dense_throughput_img_per_s: float
    dense_latency_ms: float
    speedup_measured: float | None  # of 2:4 masks that with 2:4 kernels, where the device has them
    speedup_latency: float
    infer_j_per_img: float | None
    peak_memory_bytes: int
    notes: list[str]


def profile(
    model: nn.Module,
    *,
    img_size: int,
    masks: Mapping[str, Tensor],
    threads: int,
    dense: Callable[[], nn.Module] | None = None,
    batch_size: int = 32,
    seconds: float = 2.0,
) -> Profile:
    """Costs of `model` under `masks`, on the device where it is.

    `dense`: makes the architecture before pruning, beside which the model is timed; None: it is the model itself. `seconds`: for all timing, warm-up
    apart, which takes as long at most. ValueError: a mask without its parameter, a weight that its mask drops and that is not zero, an operation
    that nothing counts and that is not known to be light.
    """
    check_zeros(model, masks)
    costs = count(model, img_size=img_size, masks=masks)
    device, was_training = next(model.parameters()).device, model.training
    with torch.inference_mode(), torch_threads(threads):
        model.eval()
        images = torch.randn(batch_size, 3, img_size, img_size, device=device, dtype=next(model.parameters()).dtype)
        peak, peak_note = peak_memory(model, images)
        whole = model if dense is None else dense().to(images).eval()
        speed = measure(model, whole, images, seconds, same_shape=shapes(model) == shapes(whole))
        if patterned(masks):
            batch = {"img_size": img_size, "batch_size": batch_size}
            speed["speedup_measured"], told = semi_structured_speedup(model, masks, **batch, seconds=seconds / 2)
            speed["notes"].append(told)
        joules, silent = energy(model, images)
    model.train(was_training)
    macs = costs.macs if shapes(model) == shapes(whole) else count(whole, img_size=img_size, masks={}).macs
    left_out = f"operations that are not counted are {costs.uncounted_share:.0%} of all, at most" if costs.uncounted_share > WORTH_A_NOTE else ""
    notes = [peak_note, *speed.pop("notes"), silent, left_out]
    return Profile(
        **parameters(model, whole, masks),
        macs=macs,
        macs_structural=costs.macs,
        macs_nonzero=costs.macs_nonzero,
        flops_convention=CONVENTION,
        uncounted_ops=costs.uncounted_ops,
        uncounted_share=costs.uncounted_share,
        throughput_batch=batch_size,
        infer_j_per_img=joules,
        peak_memory_bytes=peak,
        notes=[note for note in notes if note],
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


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    """The shape of every parameter."""
    return {name: parameter.shape for name, parameter in model.named_parameters()}


def parameters(model: nn.Module, whole: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, Any]:
    """How many parameters there are, were, and live, as fields of `Profile`.

    Prunable are those that have a mask and those of which pruning has removed a part.
    """
    before = {name: parameter.numel() for name, parameter in whole.named_parameters()}
    now = {name: parameter.numel() for name, parameter in model.named_parameters()}
    alive = now | {name: living(mask) for name, mask in masks.items()}
    prunable = {name: total for name, total in before.items() if name in masks or now.get(name) != total}
    dropped = {name: total - alive.get(name, 0) for name, total in prunable.items()}
    return {
        "params": sum(now.values()),
        "params_dense": sum(before.values()),
        "params_nonzero": sum(alive.values()),
        "sparsity_prunable": sum(dropped.values()) / sum(prunable.values()) if prunable else 0.0,
        "sparsity_all": 1 - sum(alive.values()) / sum(before.values()),
        "layers": {name: dropped[name] / prunable[name] for name in prunable},
        "collapsed": [name for name in prunable if dropped[name] == prunable[name]],
    }


def measure(model: nn.Module, whole: nn.Module, images: Tensor, seconds: float, *, same_shape: bool) -> dict[str, Any]:
    """Latency, throughput and what both are beside dense, as fields of `Profile`. `images`: a batch (B, 3, H, W)."""
    networks = {"own": model} if whole is model else {"own": model, "dense": whole}
    one = race({name: lambda network=network: network(images[:1]) for name, network in networks.items()}, images.device, seconds / 2, alone=True)
    many = race({name: lambda network=network: network(images) for name, network in networks.items()}, images.device, seconds / 2, alone=False)
    races = {"batch 1": one, f"batch {len(images)}": many}
    latency, batch = (found["own"] for found in (one, many))
    dense_latency, dense_batch = (found.get("dense", found["own"]) for found in (one, many))
    percentiles = {percent: latency.percentile_s(percent) for percent in (50, 90, 99)}
    return {
        "speed_protocol": protocol(images.device, images.dtype, (1, len(images))),
        "clock_mhz": clock_mhz(images.device),
        "throughput_img_per_s": len(images) / batch.median_s,
        "latency_ms": in_ms(percentiles[50]),
        "latency_p90_ms": in_ms(percentiles[90]),
        "latency_p99_ms": in_ms(percentiles[99]),
        "dense_throughput_img_per_s": len(images) / dense_batch.median_s,
        "dense_latency_ms": in_ms(dense_latency.percentile_s(50)),
        "speedup_measured": speedup(batch, dense_batch, same_kernels=same_shape),
        "speedup_latency": speedup(latency, dense_latency, same_kernels=same_shape),
        "notes": [*unsettled(races), *(beside_dense(races) if same_shape and whole is not model else [])],
    }


def unsettled(races: Mapping[str, Mapping[str, Timing]]) -> list[str]:
    """A note on each race in which the pace had not settled when the warm-up ended."""
    found = {name: [one for one, timing in race.items() if not timing.stable] for name, race in races.items()}
    return [f"{name}: the pace had not settled when the warm-up ended ({', '.join(who)})" for name, who in found.items() if who]


def beside_dense(races: Mapping[str, Mapping[str, Timing]]) -> list[str]:
    """What a mask's network really took beside dense, where its speed-up is 1 by definition."""
    told = []
    for name, turns in races.items():
        ratios = sorted(speedups(turns["own"], turns["dense"]))
        told.append(f"{name} {ratios[len(ratios) // 2]:.3f} (turns {ratios[0]:.3f} to {ratios[-1]:.3f})")
    rule = f"its speed-up is 1 unless it is {FASTER} or more in every one of ten turns"
    return [f"a mask runs dense kernels: {rule}; dense time / own time was {', '.join(told)}"]


def in_ms(seconds: float | None) -> float | None:
    """Milliseconds; None stays None."""
    return None if seconds is None else 1e3 * seconds


def energy(model: nn.Module, images: Tensor) -> tuple[float | None, str]:
    """Joules of the device for an image, and why there are none."""
    meter = Meter(images.device)
    if meter.silent:
        return None, f"energy: {meter.silent}"
    began, seen = time.monotonic(), 0
    while time.monotonic() - began < ENERGY_S:
        model(images)
        synchronise(images.device)
        seen += len(images)
    joules = meter.joules()
    return (None, f"energy: {meter.silent}") if joules is None else (joules / seen, "")


def peak_memory(model: nn.Module, images: Tensor) -> tuple[int, str]:
    """Peak memory of a forward pass in bytes, and what that is."""
    note = forget_peak(images.device)
    model(images)
    synchronise(images.device)
    return peak_bytes(images.device), f"{note}, inference"


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
