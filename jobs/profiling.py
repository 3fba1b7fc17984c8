"""What a network costs: parameters, multiply-adds, speed and memory, measured on the network that was saved."""

import copy
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

CONVENTION = (
    "fvcore: multiply-adds of convolutions, linear layers, matrix products and attention, batch 1; to the same sum a selective scan adds its FLOPs, "
    "9*L*D*N + L*D for the skip + L*D for the gate; norms and elementwise operations are not counted"
)
# Operations that cost memory traffic rather than arithmetic: one or a few operations an element, whatever the network's width.
NEGLIGIBLE = frozenset(
    "aten::" + name
    for name in (
        # one or a few operations an element
        "abs add add_ addcmul cos div div_ exp expm1 gelu hardsigmoid hardswish hardtanh hardtanh_ log log1p lt mul mul_ ne neg pow reciprocal rsqrt rsub "
        "sigmoid silu silu_ sin softmax softplus sqrt square sub sub_ tanh where "
        # reductions and norms
        "adaptive_avg_pool1d adaptive_avg_pool2d amax avg_pool2d batch_norm cumsum group_norm layer_norm max_pool2d mean rms_norm sum "
        # moving data
        "alias clone expand_as fill_ flip lift_fresh movedim pad pixel_shuffle pixel_unshuffle repeat repeat_interleave unflatten zero_"
    ).split()
)
THROUGH = frozenset(
    "aten::" + name for name in "t transpose permute reshape view flip to contiguous squeeze unsqueeze type_as detach clone expand alias".split()
)  # what a weight may pass on its way to the operation that uses it


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


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Multiply-adds of one image."""

    macs: int
    macs_nonzero: int
    uncounted_ops: dict[str, int]
    by_operator: dict[str, int]


def profile(
    model: nn.Module, *, img_size: int, masks: Mapping[str, Tensor], threads: int, batch_size: int = 32, min_s: float = 0.5
) -> Profile:
    """Costs of `model` under `masks`, on the device where it is. `min_s`: time given to each measurement, in seconds.

    ValueError: a mask without its parameter, a weight that its mask drops and that is not zero, a heavy operation that nothing counts.
    """
    from models.pruning.masks import collapsed, layer_sparsity, living, sparsity_of

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


# ---- multiply-adds ----


def count(model: nn.Module, *, img_size: int, masks: Mapping[str, Tensor]) -> Costs:
    """Multiply-adds of one image, dense and with zero weights free, by fvcore's trace of a copy of the model on the CPU.

    The copy runs the C++ scan, which is one operation in the trace whatever backend the model itself uses. ValueError: a heavy operation that has no
    counter.
    """
    from fvcore.nn import FlopCountAnalysis

    traced = traceable(model)
    tally = Tally(parameters=traced_names(traced), masks=masks)
    image = torch.zeros(1, 3, img_size, img_size)
    analysis = FlopCountAnalysis(traced, (image,)).clear_op_handles().set_op_handle(**tally.handles())
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    with torch.no_grad():
        by_operator = {name: int(macs) for name, macs in analysis.by_operator().items()}
    uncounted = dict(sorted(analysis.unsupported_ops().items()))
    heavy = [name for name in uncounted if name not in NEGLIGIBLE]
    if heavy:
        raise ValueError(f"nothing counts the operations {', '.join(heavy)}: give them a counter in jobs/profiling.py, or name them there as negligible")
    return Costs(macs=sum(by_operator.values()), macs_nonzero=round(tally.nonzero), uncounted_ops=uncounted, by_operator=by_operator)


def traceable(model: nn.Module) -> nn.Module:
    """A copy in fp32 on the CPU, in evaluation mode, whose scans are each one operation and whose convolutions are torch's."""
    traced = copy.deepcopy(model).to(device="cpu", dtype=torch.float32).eval()
    for module in traced.modules():
        if hasattr(module, "scan_backend"):
            module.scan_backend = "cpu"
        elif isinstance(getattr(module, "backend", None), str):
            module.backend = "reference"
    return traced


def traced_names(model: nn.Module) -> list[str]:
    """Names of parameters and buffers as the trace numbers them: each tensor once, under its first name."""
    seen: set[int] = set()
    return [name for name, tensor in model.state_dict(keep_vars=True).items() if not (id(tensor) in seen or seen.add(id(tensor)))]


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Counters for fvcore's trace that also sum the multiply-adds of weights that live."""

    parameters: Sequence[str]
    masks: Mapping[str, Tensor]
    shares: list[float] = field(default_factory=list)

    @property
    def nonzero(self) -> float:
        """Multiply-adds counted so far, those of zero weights left out."""
        return sum(self.shares)

    def handles(self) -> dict[str, Callable[[list[Any], list[Any]], Counter[str]]]:
        """A counter for every operation that has one, by the trace's name of the operation."""
        return {name: self.counter(name, macs) for name, macs in COUNTERS.items()}

    def counter(self, name: str, macs: Callable[[list[Any], list[Any]], float]) -> Callable[[list[Any], list[Any]], Counter[str]]:
        """fvcore's handle of an operation: its multiply-adds under its short name."""

        def handle(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
            cost = macs(inputs, outputs)
            self.shares.append(cost * self.density(inputs))
            return Counter({name.split("::")[1].strip("_"): cost})

        return handle

    def density(self, inputs: list[Any]) -> float:
        """Share of living weights of the masked parameter among the first three inputs of an operation; 1 where there is none."""
        for value in inputs[:3]:
            mask = self.masks.get(self.parameter(value) or "")
            if mask is not None:
                return float(mask.float().mean())
        return 1.0

    def parameter(self, value: Any) -> str | None:
        """Name of the parameter that a value of the trace is, seen through changes of shape and dtype."""
        node = value.node()
        while node.kind() in THROUGH:
            value = next(iter(node.inputs()))
            node = value.node()
        if node.kind() != "prim::Param":
            return None
        place = [output.debugName() for output in node.outputs()].index(value.debugName()) - 1  # the image comes first
        return self.parameters[place] if place >= 0 else None


def scan_flops(inputs: list[Any], outputs: list[Any]) -> int:
    """FLOPs of a selective scan: 9 B L D N, and B L D each for the skip and the gate where they are there; state-spaces/mamba, issue 110."""
    batch, channels, length = shape(inputs[0])
    states = shape(inputs[2])[1]
    skip_and_gate = sum(value.isCompleteTensor() for value in inputs[5:7])
    return batch * length * channels * (9 * states + skip_and_gate)


def attention_macs(inputs: list[Any], outputs: list[Any]) -> int:
    """Multiply-adds of Q K^T and of its product with V. Q: (..., L, E); K: (..., S, E); V: (..., S, Ev)."""
    *batch, length, width = shape(inputs[0])
    *_, keys, width_out = shape(inputs[2])
    return math.prod(batch) * length * keys * (width + width_out)


def convolution_macs(inputs: list[Any], outputs: list[Any]) -> int:
    """Multiply-adds of a convolution. Weight: (out, in / groups, ...)."""
    transposed = inputs[6].toIValue()
    places = shape(inputs[0] if transposed else outputs[0])
    return places[0] * math.prod(shape(inputs[1])) * math.prod(places[2:])


def product_macs(inputs: list[Any], outputs: list[Any]) -> int:
    """Multiply-adds of a product: every element of the result sums over the last dimension of the first factor."""
    first = next(value for value in inputs if value.isCompleteTensor())
    return math.prod(shape(outputs[0])) * shape(first)[-1]


def added_product_macs(inputs: list[Any], outputs: list[Any]) -> int:
    """Multiply-adds of addmm and baddbmm, whose factors come second and third."""
    return product_macs(inputs[1:], outputs)


def shape(value: Any) -> list[int]:
    """Sizes of a tensor in the trace."""
    sizes: list[int] = value.type().sizes()
    return sizes


COUNTERS: dict[str, Callable[[list[Any], list[Any]], float]] = {
    "aten::_convolution": convolution_macs,
    "aten::linear": product_macs,
    "aten::matmul": product_macs,
    "aten::mm": product_macs,
    "aten::bmm": product_macs,
    "aten::addmm": added_product_macs,
    "aten::baddbmm": added_product_macs,
    "aten::scaled_dot_product_attention": attention_macs,
    "vssm::selective_scan": scan_flops,
}


# ---- speed and memory ----


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
