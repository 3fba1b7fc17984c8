"""Milliseconds of single calls of the kernels, at the shapes that networks have."""

from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.gpu.checks import NAMES
from benchmarks.gpu.rows import Row, Values
from benchmarks.gpu.sizes import ScanShape, Sizes

if TYPE_CHECKING:
    from torch import Tensor


def kernel_rows(sizes: Sizes) -> list[Row]:
    """The scan of each shape by each backend, both directions at once where a network scans both, and the convolution before it."""
    rows = []
    for shape in sizes.scans:
        for dtype in sizes.dtypes:
            for kernel in ("scan", *(["both scans"] if shape.gate else []), *(["convolution"] if shape.taps else [])):
                for backend in sizes.backends:
                    labels = {"shape": shape.name, "dtype": dtype, "kernel": kernel, "kernels": NAMES[backend]}
                    rows.append(Row(labels=labels, measure=partial(times, kernel, shape, dtype, backend, sizes)))
    return rows


def times(kernel: str, shape: ScanShape, dtype: str, backend: str, sizes: Sizes) -> Values:
    """Milliseconds forward, and forward and backward, and the bytes that the forward pass must move in a second."""
    import torch

    from jobs.measure.speed import race

    device = torch.device(sizes.device)
    call, tensors = {"scan": scan, "both scans": both_scans, "convolution": convolution}[kernel](shape, dtype, backend, sizes)
    leaves = [tensor.requires_grad_() for tensor in tensors]
    result = call()
    weights = torch.randn_like(result)

    def both_passes() -> None:
        torch.autograd.grad(call(), leaves, weights)

    def forward() -> None:
        with torch.no_grad():
            call()

    took = {name: race({"": run}, device, sizes.seconds / 2, alone=False)[""].median_s for name, run in
            (("forward", forward), ("both", both_passes))}  # fmt: skip
    moved = sum(tensor.numel() * tensor.element_size() for tensor in (*tensors, result))
    return {"forward, ms": 1e3 * took["forward"], "forward + backward, ms": 1e3 * took["both"], "forward, GB/s": moved / took["forward"] / 1e9}


def sequences(shape: ScanShape, count: int, dtype: str, backend: str, sizes: Sizes) -> "list[Tensor]":
    """Sequences (B, D, L) in the memory layout that a network gives the backend: channels beside each other, for mamba-ssm positions."""
    import torch

    size = (sizes.batch, shape.channels, shape.length) if backend == "cuda" else (sizes.batch, shape.length, shape.channels)
    wanted = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    parts = [torch.randn(size, device=sizes.device, dtype=wanted) for _ in range(count)]
    return parts if backend == "cuda" else [part.transpose(1, 2) for part in parts]


def inputs(shape: ScanShape, dtype: str, backend: str, sizes: Sizes) -> "dict[str, Tensor]":
    """The arguments of `selective_scan`."""
    import torch

    names = ("u", "delta", *(["z"] if shape.gate else []))
    given = dict(zip(names, sequences(shape, len(names), dtype, backend, sizes), strict=True))
    kind = given["u"].dtype
    shared = {name: torch.randn(sizes.batch, shape.groups, shape.states, shape.length, device=sizes.device, dtype=kind) for name in "BC"}
    A = -torch.rand(shape.channels, shape.states, device=sizes.device) - 0.5
    return given | shared | {"A": A, "D": torch.ones(shape.channels, device=sizes.device), "delta_bias": A[:, 0] - 2}


def scan(shape: ScanShape, dtype: str, backend: str, sizes: Sizes) -> "tuple[Any, list[Tensor]]":
    """A scan ahead."""
    from models.ssm.scan import selective_scan

    given = inputs(shape, dtype, backend, sizes)
    return partial(selective_scan, **given, delta_softplus=True, backend=backend), list(given.values())


def both_scans(shape: ScanShape, dtype: str, backend: str, sizes: Sizes) -> "tuple[Any, list[Tensor]]":
    """The sum of a scan ahead and a scan back, as a network calls them: in Triton one launch, elsewhere two."""
    import torch

    from models.ssm.scan import selective_scan
    from models.ssm.triton_ops import scan_both_ways

    given = inputs(shape, dtype, backend, sizes)
    if backend == "triton":
        pairs: dict[str, Any] = {name: (given[name].squeeze(1),) * 2 for name in ("u", "delta", "B", "C")}
        pairs |= {"u": (given["u"],) * 2, "delta": (given["delta"],) * 2}

        def together() -> Tensor:
            stacked = {name: torch.stack((given[name],) * 2) for name in ("A", "D", "delta_bias")}
            return scan_both_ways(*(pairs["u"], pairs["delta"]), stacked["A"], pairs["B"], pairs["C"], stacked["D"], z=given["z"],
                                  delta_bias=stacked["delta_bias"]).sum(0)  # fmt: skip

        return together, list(given.values())
    call = partial(selective_scan, **given, delta_softplus=True, backend=backend)
    return lambda: call() + call(reverse=True), list(given.values())


def convolution(shape: ScanShape, dtype: str, backend: str, sizes: Sizes) -> "tuple[Any, list[Tensor]]":
    """The causal convolution with SiLU."""
    import torch

    from models.ssm.conv import conv1d_silu

    (x,) = sequences(shape, 1, dtype, backend, sizes)
    weight, bias = (torch.randn(size, device=sizes.device, dtype=x.dtype) for size in ((shape.channels, 1, shape.taps), (shape.channels,)))
    return partial(conv1d_silu, x, weight, bias, left=shape.taps - 1, backend=backend), [x, weight, bias]
