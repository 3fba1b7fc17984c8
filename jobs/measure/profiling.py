"""The costs of a network: parameters, multiply-adds, speed, memory and energy, measured on the saved network."""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypedDict, cast

import torch
from torch import Tensor, nn

from jobs.measure.energy import Meter
from jobs.measure.multiply_adds import CONVENTION, count_multiply_adds
from jobs.measure.protocols import PLAIN, Network, NotMeasurable, Protocol, images_for, prepared, tf32_of
from jobs.measure.sparse_kernels import patterned, semi_structured_speedup
from jobs.measure.speed import FASTER, Timing, clock_mhz, protocol, race, speedup, speedups
from jobs.measure.uncounted import WORTH_A_NOTE
from jobs.parallel.memory import forget_peak, peak_bytes
from models.merge_sites import merging_of
from models.pruning.masks import living

ENERGY_S = 1.0  # of consecutive batches, over which joules are read: counters tick every tenth of a second


@dataclass(frozen=True, kw_only=True)
class NetworkProfile:
    """Costs of one network, with the fields of `jobs.experiment.records.Metrics`."""

    params: int
    params_dense: int
    params_nonzero: int  # weights that masks keep, and all parameters that are never pruned
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
    speedup_measured: float | None  # with 2:4 masks, that of 2:4 kernels, where the device has them
    speedup_latency: float
    infer_j_per_img: float | None
    peak_memory_bytes: int
    speeds: dict[str, dict[str, float | None]]
    notes: list[str]


class ParameterCounts(TypedDict):
    """Fields of `NetworkProfile` that follow from shapes and masks."""

    params: int
    params_dense: int
    params_nonzero: int
    sparsity_prunable: float
    sparsity_all: float
    layers: dict[str, float]
    collapsed: list[str]


class Speed(TypedDict):
    """Fields of `NetworkProfile` that are timed."""

    speed_protocol: str
    clock_mhz: float | None
    throughput_img_per_s: float
    latency_ms: float
    latency_p90_ms: float | None
    latency_p99_ms: float | None
    dense_throughput_img_per_s: float
    dense_latency_ms: float
    speedup_measured: float | None
    speedup_latency: float


def profile_network(
    model: nn.Module,
    *,
    img_size: int,
    masks: Mapping[str, Tensor],
    threads: int,
    dense: Callable[[], nn.Module] | None = None,
    batch_size: int = 32,
    seconds: float = 2.0,
    further: Sequence[Protocol] = (),
) -> NetworkProfile:
    """Costs of `model` under `masks`, on the device where it is.

    `dense`: makes the architecture before pruning, beside which the model is timed; None where it is the model itself. `seconds`: for all timing; the
    warm-up takes as long again at most. `further`: protocols to time besides the plain one, each as long. Raises ValueError for a mask without its
    parameter, a weight that is not zero although its mask drops it, and an operation that has no counter and is not known to be light.
    """
    check_zeros(model, masks)
    costs = count_multiply_adds(model, img_size=img_size, masks=masks)
    device, was_training = next(model.parameters()).device, model.training
    with torch.inference_mode(), torch_threads(threads):
        model.eval()
        images = torch.randn(batch_size, 3, img_size, img_size, device=device, dtype=next(model.parameters()).dtype)
        peak, peak_note = peak_memory(model, images)
        whole = model if dense is None else dense().to(images).eval()
        same_shape = runs_alike(model, whole)
        speed, speed_notes = measure_speed(model, whole, images, seconds, same_shape=same_shape)
        if patterned(masks):
            speed["speedup_measured"], kernel_note = semi_structured_speedup(
                model, masks, img_size=img_size, batch_size=batch_size, seconds=seconds / 2
            )
            speed_notes.append(kernel_note)
        speeds, further_notes = further_speeds(model, whole, images, seconds, further, same_shape=same_shape)
        joules, energy_note = energy_per_image(model, images)
    model.train(was_training)
    left_out = costs.uncounted_share
    uncounted_note = f"operations that are not counted are {left_out:.0%} of all, at most" if left_out > WORTH_A_NOTE else ""
    return NetworkProfile(
        **parameter_counts(model, whole, masks),
        macs=costs.macs if same_shape else count_multiply_adds(whole, img_size=img_size, masks={}).macs,
        macs_structural=costs.macs,
        macs_nonzero=costs.macs_nonzero,
        flops_convention=CONVENTION,
        uncounted_ops=costs.uncounted_ops,
        uncounted_share=left_out,
        throughput_batch=batch_size,
        infer_j_per_img=joules,
        peak_memory_bytes=peak,
        speeds=speeds,
        notes=[note for note in (peak_note, *speed_notes, *further_notes, energy_note, uncounted_note) if note],
        **speed,
    )


def check_zeros(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Raises ValueError unless every weight that a mask drops is exactly zero in the model."""
    parameters = dict(model.named_parameters())
    for name, mask in masks.items():
        if name not in parameters or parameters[name].shape != mask.shape:
            raise ValueError(f"a mask of shape {tuple(mask.shape)} is named '{name}', and the model has no such parameter")
        nonzero = int(torch.count_nonzero(parameters[name].detach()[~mask.to(parameters[name].device)]))
        if nonzero:
            raise ValueError(f"{nonzero} weights of '{name}' are not zero although its mask drops them: the masks are not those of this model")


def runs_alike(model: nn.Module, whole: nn.Module) -> bool:
    """True if two networks run the same operations: the shapes of their parameters are equal, and the tokens that they merge."""
    return shapes(model) == shapes(whole) and merging_of(model) == merging_of(whole)


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    """The shape of every parameter."""
    return {name: parameter.shape for name, parameter in model.named_parameters()}


def parameter_counts(model: nn.Module, whole: nn.Module, masks: Mapping[str, Tensor]) -> ParameterCounts:
    """The number of parameters now, before pruning, and alive, and the sparsity of each prunable parameter.

    A parameter is prunable if it has a mask, if pruning has removed a part of it, or if it is one of those of which pruning has removed some whole,
    such as the weights of out_proj in all blocks.
    """
    before = {name: parameter.numel() for name, parameter in whole.named_parameters()}
    now = {name: parameter.numel() for name, parameter in model.named_parameters()}
    alive = now | {name: living(mask) for name, mask in masks.items()}
    gone = {kind_of(name) for name in before if name not in now}
    prunable = {name: total for name, total in before.items() if name in masks or now.get(name) != total or kind_of(name) in gone}
    dropped = {name: total - alive.get(name, 0) for name, total in prunable.items()}
    return {
        "params": sum(now.values()),
        "params_dense": sum(before.values()),
        "params_nonzero": sum(alive.values()),
        "sparsity_prunable": sum(dropped.values()) / sum(prunable.values()) if prunable else 0.0,
        "sparsity_all": 1 - sum(alive.values()) / sum(before.values()),
        "layers": {name: dropped[name] / prunable[name] for name in prunable},
        "collapsed": [name for name in prunable if name in now and dropped[name] == prunable[name]],  # the others are gone with their block
    }


def kind_of(name: str) -> str:
    """A parameter's name without the numbers of its stage and block: layers.#.mixer.out_proj.weight."""
    return re.sub(r"(?<=\.)\d+(?=\.)", "#", name)


def further_speeds(
    model: nn.Module, whole: nn.Module, images: Tensor, seconds: float, further: Sequence[Protocol], *, same_shape: bool
) -> tuple[dict[str, dict[str, float | None]], list[str]]:
    """The timed fields by protocol, and notes on them. A protocol that cannot be measured has a note alone."""
    speeds: dict[str, dict[str, float | None]] = {}
    notes: list[str] = []
    for way in further:
        named = way.name(images.device)
        try:
            speed, own_notes = measure_speed(model, whole, images, seconds, same_shape=same_shape, way=way)
        except NotMeasurable as error:
            notes.append(f"{named}: not measured: {error}")
            continue
        timed_fields = {name: value for name, value in speed.items() if name != "speed_protocol"}
        speeds[speed["speed_protocol"]] = cast(dict[str, float | None], timed_fields)
        notes += [f"{named}: {note}" for note in own_notes]
    return speeds, notes


def measure_speed(
    model: nn.Module, whole: nn.Module, images: Tensor, seconds: float, *, same_shape: bool, way: Protocol = PLAIN
) -> tuple[Speed, list[str]]:
    """Latency, throughput, both beside dense, and notes on them. `images`: a batch (B, 3, H, W).

    Raises NotMeasurable where the network or its device cannot run in another way than the plain one.
    """
    given = {"own": model} if whole is model else {"own": model, "dense": whole}
    images = images_for(way, images)
    with tf32_of(way):
        networks = {name: prepared(network, way, images) for name, network in given.items()}
        return race_networks(networks, images, seconds, same_shape=same_shape, masked=same_shape and whole is not model, words=way.words)


def race_networks(
    networks: Mapping[str, Network], images: Tensor, seconds: float, *, same_shape: bool, masked: bool, words: Sequence[str]
) -> tuple[Speed, list[str]]:
    """What `measure_speed` returns, of networks that are ready to run. `masked`: the two differ in zeros alone."""
    device, image = images.device, images[:1]
    latencies = race({name: partial(network, image) for name, network in networks.items()}, device, seconds / 2, alone=True)
    batches = race({name: partial(network, images) for name, network in networks.items()}, device, seconds / 2, alone=False)
    races = {"batch 1": latencies, f"batch {len(images)}": batches}
    latency, batch = latencies["own"], batches["own"]
    dense_latency, dense_batch = latencies.get("dense", latency), batches.get("dense", batch)
    speed = Speed(
        speed_protocol=protocol(device, images.dtype, (1, len(images)), words),
        clock_mhz=clock_mhz(device),
        throughput_img_per_s=len(images) / batch.median_s,
        latency_ms=1e3 * latency.quantile_s(50),
        latency_p90_ms=in_ms(latency.percentile_s(90)),
        latency_p99_ms=in_ms(latency.percentile_s(99)),
        dense_throughput_img_per_s=len(images) / dense_batch.median_s,
        dense_latency_ms=1e3 * dense_latency.quantile_s(50),
        speedup_measured=speedup(batch, dense_batch, same_kernels=same_shape),
        speedup_latency=speedup(latency, dense_latency, same_kernels=same_shape),
    )
    return speed, [*unsettled(races), *(beside_dense(races) if masked else [])]


def unsettled(races: Mapping[str, Mapping[str, Timing]]) -> list[str]:
    """A note on each race in which the pace had not settled when the warm-up ended."""
    networks = {name: [network for network, timing in race.items() if not timing.stable] for name, race in races.items()}
    return [f"{name}: the pace had not settled when the warm-up ended ({', '.join(who)})" for name, who in networks.items() if who]


def beside_dense(races: Mapping[str, Mapping[str, Timing]]) -> list[str]:
    """A note on the measured times of a masked network and dense, where the speed-up is 1 by definition."""
    measured = []
    for name, timings in races.items():
        ratios = sorted(speedups(timings["own"], timings["dense"]))
        measured.append(f"{name} {ratios[len(ratios) // 2]:.3f} (turns {ratios[0]:.3f} to {ratios[-1]:.3f})")
    rule = f"its speed-up is 1 unless it is {FASTER} or more in every one of ten turns"
    return [f"a mask runs dense kernels: {rule}; dense time / own time was {', '.join(measured)}"]


def in_ms(seconds: float | None) -> float | None:
    """Milliseconds; None stays None."""
    return None if seconds is None else 1e3 * seconds


def energy_per_image(model: nn.Module, images: Tensor) -> tuple[float | None, str]:
    """Joules of the device for an image; None, and a note on the reason, where they are unknown."""
    meter = Meter(images.device)
    if meter.missing:
        return None, f"energy: {meter.missing}"
    began, count = time.monotonic(), 0
    while time.monotonic() - began < ENERGY_S:
        model(images)
        synchronise(images.device)
        count += len(images)
    joules = meter.joules()
    return (None, f"energy: {meter.missing}") if joules is None else (joules / count, "")


def peak_memory(model: nn.Module, images: Tensor) -> tuple[int, str]:
    """Peak memory of a forward pass in bytes, and a note on what was measured."""
    note = forget_peak(images.device)
    model(images)
    synchronise(images.device)
    return peak_bytes(images.device), f"{note}, inference"


def synchronise(device: torch.device) -> None:
    """Waits until a GPU has done its work. A CPU never has work left."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Torch has `threads` threads inside the block, and as many as before after it."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
