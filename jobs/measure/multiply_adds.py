"""The multiply-adds of a network by fvcore's trace, with and without zero weights, and the operations that are not counted."""

import copy
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from jobs.measure.uncounted import LIGHT, TraceValue, Uncounted
from models.ssm.kernel import Operators

if TYPE_CHECKING:
    from fvcore.nn import FlopCountAnalysis

Macs = Callable[[list[TraceValue], list[TraceValue]], float]  # multiply-adds of an operation, from its inputs and outputs

CONVENTION = (
    "fvcore: multiply-adds of convolutions, linear layers, matrix products and attention, batch 1; to the same sum a selective scan adds its FLOPs, "
    "9*L*D*N + L*D for the skip + L*D for the gate; complex products and exponentials count 4, an FFT of n real points 5/4*n*log2(n); "
    "norms and elementwise operations on real numbers are not counted"
)
THROUGH = frozenset(
    "aten::" + name for name in "t transpose permute reshape view flip to contiguous squeeze unsqueeze type_as detach clone expand alias".split()
)  # operations that a weight may pass through before the operation that uses it


@dataclass(frozen=True, kw_only=True)
class MultiplyAdds:
    """Multiply-adds of one image."""

    macs: int  # with zero weights
    macs_nonzero: int  # without them
    uncounted_ops: dict[str, int]  # how often each ran
    uncounted_share: float  # at most this fraction of all operations
    by_operator: dict[str, int]


def count_multiply_adds(model: nn.Module, *, img_size: int, masks: Mapping[str, Tensor]) -> MultiplyAdds:
    """Multiply-adds of one image, with and without zero weights, by fvcore's trace of the model on the CPU.

    The trace has the C++ scan, which is a single operation, whatever backend the model uses; its library need not be built. Raises ValueError for an
    operation that has no counter and is not known to be light.
    """
    from fvcore.nn import FlopCountAnalysis

    traced = traceable(model)
    counters = TraceCounters(parameters=traced_names(traced), masks=masks)
    image = torch.zeros(1, 3, img_size, img_size)
    analysis = FlopCountAnalysis(traced, (image,)).clear_op_handles().set_op_handle(**counters.handles())
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    with ThreadPoolExecutor(1) as thread:  # a trace notes the whole stack at each operation, and that of a new thread is short
        by_operator = thread.submit(traced_counts, analysis).result()
    macs = sum(by_operator.values())
    counters.uncounted.check(analysis.unsupported_ops())
    return MultiplyAdds(
        macs=macs,
        macs_nonzero=round(counters.nonzero),
        uncounted_ops=dict(sorted(counters.uncounted.times.items())),
        uncounted_share=counters.uncounted.share(macs),
        by_operator=by_operator,
    )


def traced_counts(analysis: "FlopCountAnalysis") -> dict[str, int]:
    """Multiply-adds by operator."""
    with torch.no_grad(), Operators.give_shapes():
        return {name: int(macs) for name, macs in analysis.by_operator().items()}


def traceable(model: nn.Module) -> nn.Module:
    """A copy in fp32 on the CPU, in evaluation mode, in which a scan and a convolution over tokens are a single operation each.

    It shares the weights that are fp32 on the CPU already.
    """
    memo: dict[int, Tensor] = {
        id(weight): nn.Parameter(weight.detach().to("cpu", torch.float32), requires_grad=False) for weight in model.parameters()
    }
    memo |= {id(buffer): buffer.detach().to(device="cpu", dtype=torch.float32 if buffer.is_floating_point() else None) for buffer in model.buffers()}
    traced = copy.deepcopy(model, memo).eval()
    for module in traced.modules():
        for backend in {"scan_backend", "backend"} & vars(module).keys():
            setattr(module, backend, "cpu")
    return traced


def traced_names(model: nn.Module) -> list[str]:
    """Names of parameters and buffers as the trace numbers them: each tensor once, under its first name."""
    first_names: dict[int, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        first_names.setdefault(id(tensor), name)
    return list(first_names.values())


@dataclass(frozen=True, kw_only=True)
class TraceCounters:
    """Counters for fvcore's trace, which also sum the multiply-adds of weights that are not zero."""

    parameters: Sequence[str]
    masks: Mapping[str, Tensor]
    nonzero_macs: list[float] = field(default_factory=list)  # of each operation so far
    uncounted: Uncounted = field(default_factory=Uncounted)

    @property
    def nonzero(self) -> float:
        """Multiply-adds counted so far, without those of zero weights."""
        return sum(self.nonzero_macs)

    def handles(self) -> dict[str, Callable[[list[TraceValue], list[TraceValue]], Counter[str]]]:
        """fvcore's handles of all operations that are counted or light, by their names in the trace."""
        light = {name: self.handle(name, nothing) for name in LIGHT}
        return light | {name: self.handle(name, macs) for name, macs in COUNTERS.items()}

    def handle(self, name: str, macs: Macs) -> Callable[[list[TraceValue], list[TraceValue]], Counter[str]]:
        """fvcore's handle of an operation: its multiply-adds under its short name."""

        def count(inputs: list[TraceValue], outputs: list[TraceValue]) -> Counter[str]:
            cost = macs(inputs, outputs)
            if cost == 0:
                self.uncounted.add(name, inputs, outputs)
                return Counter()
            self.nonzero_macs.append(cost * self.density(inputs))
            return Counter({name.split("::")[1].strip("_"): cost})

        return count

    def density(self, inputs: list[TraceValue]) -> float:
        """The fraction of weights that live in the masked parameter among the first three inputs of an operation; 1 without such an input."""
        for value in inputs[:3] if self.masks else ():
            mask = self.masks.get(self.parameter(value) or "")
            if mask is not None:
                return float(mask.float().mean())
        return 1.0

    def parameter(self, value: TraceValue) -> str | None:
        """Name of the parameter that a value of the trace is, apart from changes of shape and dtype; None where it is none."""
        node = value.node()
        while node.kind() in THROUGH:
            value = next(iter(node.inputs()))
            node = value.node()
        if node.kind() != "prim::Param":
            return None
        position = [output.debugName() for output in node.outputs()].index(value.debugName()) - 1  # the image comes first
        return self.parameters[position] if position >= 0 else None


# multiply-adds of operations, from their inputs and outputs in the trace


def nothing(inputs: list[TraceValue], outputs: list[TraceValue]) -> int:
    """0: a light operation."""
    return 0


def scan_flops(inputs: list[TraceValue], outputs: list[TraceValue]) -> int:
    """FLOPs of a selective scan: 9 B L D N, and B L D each for the skip and the gate if it has them (state-spaces/mamba, issue 110)."""
    batch, channels, length = shape(inputs[0])
    states = shape(inputs[2])[1]
    skip_and_gate = sum(bool(value.isCompleteTensor()) for value in inputs[5:7])
    return batch * length * channels * (9 * states + skip_and_gate)


def attention_macs(inputs: list[TraceValue], outputs: list[TraceValue]) -> int:
    """Multiply-adds of Q K^T and of its product with V. Q: (..., L, E); K: (..., S, E); V: (..., S, Ev)."""
    *batch, length, width = shape(inputs[0])
    *_, keys, width_out = shape(inputs[2])
    return math.prod(batch) * length * keys * (width + width_out)


def convolution_macs(inputs: list[TraceValue], outputs: list[TraceValue]) -> int:
    """Multiply-adds of a convolution. Weight: (out, in / groups, ...)."""
    transposed = inputs[6].toIValue()
    batch, _, *positions = shape(inputs[0] if transposed else outputs[0])
    return batch * math.prod(shape(inputs[1])) * math.prod(positions)


def padded_convolution_macs(inputs: list[TraceValue], outputs: list[TraceValue]) -> int:
    """Multiply-adds of a convolution whose padding is a word, such as same. Weight: (out, in / groups, ...)."""
    batch, _, *positions = shape(outputs[0])
    return batch * math.prod(shape(inputs[1])) * math.prod(positions)


def token_convolution_macs(inputs: list[TraceValue], outputs: list[TraceValue]) -> int:
    """Multiply-adds of a mixer's depthwise convolution, which has as many outputs as inputs. x: (B, D, L); weight: (D, 1, taps)."""
    return math.prod(shape(inputs[0])) * shape(inputs[1])[-1]


def product_macs(inputs: list[TraceValue], outputs: list[TraceValue]) -> int:
    """Multiply-adds of a product. Every element of the result sums over the last dimension of the first factor."""
    first = next(value for value in inputs if value.isCompleteTensor())
    return math.prod(shape(outputs[0])) * shape(first)[-1] * weight_of(outputs[0])


def added_product_macs(inputs: list[TraceValue], outputs: list[TraceValue]) -> int:
    """Multiply-adds of addmm and baddbmm, whose factors come second and third."""
    return product_macs(inputs[1:], outputs)


def einsum_macs(inputs: list[TraceValue], outputs: list[TraceValue]) -> int:
    """Multiply-adds of an einsum of two factors: the product of all its dimensions."""
    factors = inputs[0].toIValue().replace(" ", "").split("->")[0].split(",")
    sizes: dict[str, int] = {}
    for letters, value in zip(factors, inputs[1].node().inputs(), strict=True):
        sizes |= zip(letters, shape(value), strict=True)
    return math.prod(sizes.values()) * (len(factors) - 1) * weight_of(outputs[0])


def complex_elementwise_macs(inputs: list[TraceValue], outputs: list[TraceValue]) -> int:
    """Multiply-adds of an elementwise product or exponential of complex numbers. 0 for real numbers, which are not counted."""
    return math.prod(shape(outputs[0])) * weight_of(outputs[0]) if is_complex(outputs[0]) else 0


def real_fft_macs(inputs: list[TraceValue], outputs: list[TraceValue]) -> float:
    """Multiply-adds of FFTs from or to n real points over one dimension: half of 5/2 n log2 n FLOPs each."""
    dimension = inputs[2].toIValue()
    sizes = shape(outputs[0])
    points = sizes.pop(dimension)
    if is_complex(outputs[0]):  # n / 2 + 1 frequencies
        points = 2 * (points - 1)
    return math.prod(sizes) * 1.25 * points * math.log2(points)


def is_complex(value: TraceValue) -> bool:
    """Whether a tensor in the trace is complex."""
    return bool(value.type().dtype().is_complex)


def weight_of(value: TraceValue) -> int:
    """Real multiply-adds in a multiply-add whose result is a value of the trace."""
    return 4 if is_complex(value) else 1


def shape(value: TraceValue) -> list[int]:
    """Sizes of a tensor in the trace."""
    sizes: list[int] = value.type().sizes()
    return sizes


COUNTERS: dict[str, Macs] = {
    "aten::_convolution": convolution_macs,
    "aten::_convolution_mode": padded_convolution_macs,
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
