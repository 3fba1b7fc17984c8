"""The multiply-adds of a network, by fvcore's trace: what each operation costs, what is not counted, and what zero weights spare."""

import copy
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from jobs.measure.uncounted import LIGHT, Uncounted

CONVENTION = (
    "fvcore: multiply-adds of convolutions, linear layers, matrix products and attention, batch 1; to the same sum a selective scan adds its FLOPs, "
    "9*L*D*N + L*D for the skip + L*D for the gate; complex products and exponentials count 4, an FFT of n real points 5/4*n*log2(n); "
    "norms and elementwise operations on real numbers are not counted"
)
THROUGH = frozenset(
    "aten::" + name for name in "t transpose permute reshape view flip to contiguous squeeze unsqueeze type_as detach clone expand alias".split()
)  # what a weight may pass on its way to the operation that uses it


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Multiply-adds of one image."""

    macs: int  # of the network as it stands, zeros counted
    macs_nonzero: int
    uncounted_ops: dict[str, int]  # how often each ran
    uncounted_share: float  # of all operations, at most
    by_operator: dict[str, int]


def count(model: nn.Module, *, img_size: int, masks: Mapping[str, Tensor]) -> Costs:
    """Multiply-adds of one image, zeros counted and zero weights free, by fvcore's trace of the model on the CPU.

    What is traced runs the C++ scan, which is one operation in the trace whatever backend the model itself uses. ValueError: an operation that has no
    counter and is not known to be light.
    """
    from fvcore.nn import FlopCountAnalysis

    traced = traceable(model)
    tally = Tally(parameters=traced_names(traced), masks=masks)
    image = torch.zeros(1, 3, img_size, img_size)
    analysis = FlopCountAnalysis(traced, (image,)).clear_op_handles().set_op_handle(**tally.handles())
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    with torch.no_grad():
        by_operator = {name: int(macs) for name, macs in analysis.by_operator().items()}
    macs = sum(by_operator.values())
    tally.uncounted.check(analysis.unsupported_ops())
    return Costs(
        macs=macs,
        macs_nonzero=round(tally.nonzero),
        uncounted_ops=dict(sorted(tally.uncounted.times.items())),
        uncounted_share=tally.uncounted.share(macs),
        by_operator=by_operator,
    )


def traceable(model: nn.Module) -> nn.Module:
    """A twin in fp32 on the CPU, in evaluation mode, whose scans and convolutions over tokens are each one operation. It shares weights that fit."""
    cpu: dict[str, Any] = {"device": "cpu", "dtype": torch.float32}
    memo: dict[int, Any] = {id(one): nn.Parameter(one.detach().to(**cpu), requires_grad=False) for one in model.parameters()}
    memo |= {id(one): one.detach().to(device="cpu", dtype=torch.float32 if one.is_floating_point() else None) for one in model.buffers()}
    traced = copy.deepcopy(model, memo).eval()
    for module in traced.modules():
        for backend in {"scan_backend", "backend"} & vars(module).keys():
            setattr(module, backend, "cpu")
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
    uncounted: Uncounted = field(default_factory=Uncounted)

    @property
    def nonzero(self) -> float:
        """Multiply-adds counted so far, those of zero weights left out."""
        return sum(self.shares)

    def handles(self) -> dict[str, Callable[[list[Any], list[Any]], Counter[str]]]:
        """A counter for every operation that has one, by the trace's name of the operation."""
        same = {alias: self.counter(name, COUNTERS[name]) for alias, name in ALIASES.items()}
        light = {name: self.counter(name, nothing) for name in LIGHT}
        return light | {name: self.counter(name, macs) for name, macs in COUNTERS.items()} | same

    def counter(self, name: str, macs: Callable[[list[Any], list[Any]], float]) -> Callable[[list[Any], list[Any]], Counter[str]]:
        """fvcore's handle of an operation: its multiply-adds under its short name."""

        def handle(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
            cost = macs(inputs, outputs)
            if cost == 0:
                self.uncounted.add(name, inputs, outputs)
                return Counter()
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


def nothing(inputs: list[Any], outputs: list[Any]) -> int:
    """0: a light operation."""
    return 0


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


def token_convolution_macs(inputs: list[Any], outputs: list[Any]) -> int:
    """Multiply-adds of a mixer's depthwise convolution, of as many outputs as inputs. x: (B, D, L); weight: (D, 1, taps)."""
    return math.prod(shape(inputs[0])) * shape(inputs[1])[-1]


def product_macs(inputs: list[Any], outputs: list[Any]) -> int:
    """Multiply-adds of a product: every element of the result sums over the last dimension of the first factor."""
    first = next(value for value in inputs if value.isCompleteTensor())
    return math.prod(shape(outputs[0])) * shape(first)[-1] * weight_of(outputs[0])


def added_product_macs(inputs: list[Any], outputs: list[Any]) -> int:
    """Multiply-adds of addmm and baddbmm, whose factors come second and third."""
    return product_macs(inputs[1:], outputs)


def einsum_macs(inputs: list[Any], outputs: list[Any]) -> int:
    """Multiply-adds of an einsum of two factors: the product of all its dimensions."""
    factors = inputs[0].toIValue().replace(" ", "").split("->")[0].split(",")
    sizes: dict[str, int] = {}
    for letters, value in zip(factors, inputs[1].node().inputs(), strict=True):
        sizes |= zip(letters, shape(value), strict=True)
    return math.prod(sizes.values()) * (len(factors) - 1) * weight_of(outputs[0])


def complex_elementwise_macs(inputs: list[Any], outputs: list[Any]) -> int:
    """Multiply-adds of an elementwise product of complex numbers, or of their powers by one product each; 0, not worth counting, of real ones."""
    return math.prod(shape(outputs[0])) * weight_of(outputs[0]) if is_complex(outputs[0]) else 0


def real_fft_macs(inputs: list[Any], outputs: list[Any]) -> float:
    """Multiply-adds of FFTs of n real points, or back to them, over one dimension: half of 5/2 n log2 n FLOPs each."""
    dimension = inputs[2].toIValue()
    sizes = shape(outputs[0])
    points = sizes.pop(dimension)
    if is_complex(outputs[0]):  # n / 2 + 1 frequencies
        points = 2 * (points - 1)
    return math.prod(sizes) * 1.25 * points * math.log2(points)


def is_complex(value: Any) -> bool:
    """Whether a tensor in the trace is complex."""
    return bool(value.type().dtype().is_complex)


def weight_of(value: Any) -> int:
    """Real multiply-adds in one multiply-add that makes a value of the trace."""
    return 4 if is_complex(value) else 1


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
    "aten::einsum": einsum_macs,
    "aten::mul": complex_elementwise_macs,
    "aten::addcmul": complex_elementwise_macs,
    "aten::exp": complex_elementwise_macs,
    "aten::fft_rfft": real_fft_macs,
    "aten::fft_irfft": real_fft_macs,
    "aten::scaled_dot_product_attention": attention_macs,
    "vssm::conv1d_silu": token_convolution_macs,
    "vssm::selective_scan": scan_flops,
}
# Once an engine ran at ZeRO 3, DeepSpeed's own function stands in place of F.linear in the whole process.
ALIASES = {"prim::PythonOp.LinearFunctionForZeroStage3": "aten::linear"}
