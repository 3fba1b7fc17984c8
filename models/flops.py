"""Multiply-adds of a network, counted from shapes. The network is on the meta device, so nothing is computed."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Costs for one image. Multiply-adds count as one operation; a selective scan counts 9 B L D N FLOPs, the convention of Mamba's authors."""

    parameters: int
    macs: int  # of linear layers, convolutions and matrix products, those of attention included
    scan_flops: int


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What one module does itself for one image, without the modules in it."""

    name: str
    kind: str  # its class
    parameters: int
    macs: int
    scan_flops: int


@dataclass(frozen=True, kw_only=True)
class Tally:
    """All that is counted of a network for one image, by part."""

    products: int  # multiply-adds of linear layers, convolutions and matrix products but attention's
    attention: int  # multiply-adds of queries with keys, and of weights with values
    scan: int  # FLOPs, 9 B L D N
    skip: int  # FLOPs of a scan's D, B L D
    gate: int  # FLOPs of a scan's z, B L D
    norms: int  # FLOPs by fvcore's rule: 5 for each number of a layer or group norm, 2 of a batch norm; root-mean-square norms count none
    layers: tuple[Layer, ...]  # that count something or hold parameters, in the order of their first call

    @property
    def parts(self) -> dict[str, int]:
        """The figures by name."""
        return {name: getattr(self, name) for name in ("products", "attention", "scan", "skip", "gate", "norms")}


@dataclass(frozen=True, kw_only=True)
class Convention:
    """A way to count: the parts that go into its one figure, who counts so, and what it leaves out."""

    name: str
    parts: tuple[str, ...]
    used: str
    left_out: str

    def figure(self, tally: Tally) -> int:
        """Multiply-adds and FLOPs in one sum."""
        return sum(tally.parts[part] for part in self.parts)


ELEMENTWISE = "activations, softmax, additions"
CONVENTIONS: tuple[Convention, ...] = (
    Convention(
        name="ours",
        parts=("products", "attention", "scan", "skip", "gate"),
        used="a cell's record and the leaderboard; the table of models has the scan in a column of its own",
        left_out=f"norms, {ELEMENTWISE}; the FFTs of S4 and the complex arithmetic of S4 and S5, which a record counts",
    ),
    Convention(
        name="scan left out",
        parts=("products",),
        used="MambaVision's paper, and counters that know no kernel",
        left_out=f"the scan with its skip and gate, attention in a fused kernel, norms, {ELEMENTWISE}",
    ),
    Convention(
        name="9BLDN + BDL",
        parts=("products", "attention", "scan", "skip", "gate", "norms"),
        used="VMamba's paper and code, and those that follow it: fvcore's rules",
        left_out=f"root-mean-square norms, {ELEMENTWISE}, FFTs",
    ),
)


def costs(model: nn.Module, img_size: int) -> Costs:
    """The costs of `model`, made on the meta device, for an image of `img_size` px, without norms, elementwise operations and FFTs."""
    counted = tally(model, img_size)
    return Costs(parameters=count_parameters(model), macs=counted.products + counted.attention, scan_flops=counted.scan)


def tally(model: nn.Module, img_size: int) -> Tally:
    """What `model`, made on the meta device, does for an image of `img_size` px."""
    import models.ssm.conv
    import models.ssm.cpu  # noqa: F401  (both define the operators of `formulas`)

    besides: Counter[str] = Counter()
    counter, attention = FlopCounterMode(display=False, custom_mapping=formulas(besides)), AttentionProducts()
    with counter, attention, torch.no_grad(), without_gradients(model):
        model.eval()(torch.empty(1, 3, img_size, img_size, device="meta"))
    by_module = {path: _split(operators) for path, operators in counter.get_flop_counts().items()}
    macs, scan = by_module.get("Global", (0, 0))
    return Tally(
        products=macs - attention.macs,
        attention=attention.macs,
        scan=scan,
        skip=besides["skip"],
        gate=besides["gate"],
        norms=besides["norms"],
        layers=tuple(_layers(model, by_module)),
    )


@contextmanager
def without_gradients(model: nn.Module) -> Iterator[None]:
    """Lets no parameter ask for a gradient: torch's counter fails on a module that is called with a parameter, such as attention's learned query."""
    asking = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)


def count_parameters(model: nn.Module) -> int:
    """The number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def formulas(besides: Counter[str]) -> dict[Any, Callable[..., int]]:
    """The FLOPs of operators that torch's counter does not know; `besides` gets what is no multiply-add: skip, gate and norms."""

    def scan(u: Shape, delta: Shape, A: Shape, B: Shape, C: Shape, D: Shape | None, z: Shape | None, *rest: object, **options: object) -> int:
        besides["skip"] += math.prod(u) if D is not None else 0
        besides["gate"] += math.prod(u) if z is not None else 0
        return 9 * math.prod(u) * A[1]

    def convolution(x: Shape, weight: Shape, *rest: object, **options: object) -> int:
        return 2 * math.prod(x) * weight[-1]

    def norm(each: int) -> Callable[..., int]:
        def add(x: Shape, *rest: object, **options: object) -> int:
            besides["norms"] += each * math.prod(x)
            return 0

        return add

    aten, ours = torch.ops.aten, torch.ops.vssm
    norms = {aten.native_layer_norm: 5, aten.native_group_norm: 5, aten.native_batch_norm: 2, aten._native_batch_norm_legit_no_training: 2}
    return {ours.selective_scan: scan, ours.conv1d_silu: convolution} | {operator: norm(each) for operator, each in norms.items()}


class AttentionProducts(TorchFunctionMode):
    """Sums the multiply-adds of every scaled dot-product attention while it is open."""

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The function's result."""
        if func is F.scaled_dot_product_attention:
            query, key, value = args[:3]
            self.macs += math.prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])
        return func(*args, **(kwargs or {}))


def _split(operators: Mapping[Any, int]) -> tuple[int, int]:
    """(multiply-adds, FLOPs of scans) of a module with all that is in it."""
    scan = sum(flops for operator, flops in operators.items() if "selective_scan" in str(operator))
    return (sum(operators.values()) - scan) // 2, scan


def _layers(model: nn.Module, by_module: Mapping[str, tuple[int, int]]) -> list[Layer]:
    """The modules with what they do themselves: what is counted in them, without what is counted in the modules they call."""
    root = type(model).__name__
    own = {path: list(figures) for path, figures in by_module.items() if path != "Global"}
    for path, figures in by_module.items():
        caller = path.rpartition(".")[0]
        while caller and caller not in own:
            caller = caller.rpartition(".")[0]
        if caller and path != "Global":
            own[caller] = [mine - theirs for mine, theirs in zip(own[caller], figures, strict=True)]
    layers = []
    for name, module in model.named_modules():
        macs, scan = own.get(f"{root}.{name}" if name else root, (0, 0))
        parameters = sum(parameter.numel() for parameter in module.parameters(recurse=False))
        if macs or scan or parameters:
            layers.append(Layer(name=name, kind=type(module).__name__, parameters=parameters, macs=macs, scan_flops=scan))
    return layers
