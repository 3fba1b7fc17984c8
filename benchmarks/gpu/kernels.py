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

    positions_last = shape.positions_last or backend == "cuda"
    size = (sizes.batch, shape.channels, shape.length) if positions_last else (sizes.batch, shape.length, shape.channels)
    wanted = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    parts = [torch.randn(size, device=sizes.device, dtype=wanted) for _ in range(count)]
    return parts if positions_last else [part.transpose(1, 2) for part in parts]


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

        def together() -> "Tensor":
            u, delta, B, C = ((part, part) for part in (given["u"], given["delta"], given["B"].squeeze(1), given["C"].squeeze(1)))
            A, D, bias = (torch.stack((given[name], given[name])) for name in ("A", "D", "delta_bias"))
            return scan_both_ways(u, delta, A, B, C, D, z=given["z"], delta_bias=bias).sum(0)

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


# how the backward scan is launched


def launch_rows(sizes: Sizes) -> list[Row]:
    """The first shape in bf16 or fp32 under other constants of models/ssm/launch.py, the ones in use first."""
    from models.ssm.launch import CHUNK, DEPTH

    ways = dict.fromkeys([(DEPTH, CHUNK, 0), (1, CHUNK, 168), (1, 16, 168), (1, 16, 0), (2, 16, 0), (2, 64, 0), (2, CHUNK, 224), (2, CHUNK, 168)])
    labels = [{"positions at a time": str(depth), "chunk": str(chunk), "most registers": str(most or "255")} for depth, chunk, most in ways]
    rows = [Row(labels=label, measure=partial(launched, *way, sizes)) for label, way in zip(labels, ways, strict=True)]
    return rows if "triton" in sizes.backends else []


def launched(depth: int, chunk: int, most_registers: int, sizes: Sizes) -> Values:
    """`times` of both scans, launched so, and whether the gradients are those of the usual launch."""
    from unittest.mock import patch

    import torch

    from models.ssm import launch, triton_ops

    shape, dtype = sizes.scans[0], sizes.dtypes[0]
    torch.manual_seed(0)
    call, tensors = both_scans(shape, dtype, "triton", sizes)
    leaves = [tensor.requires_grad_() for tensor in tensors]
    want = torch.autograd.grad(call().float().sum(), leaves)
    limit = property(lambda _: most_registers or None)
    with (
        patch.object(launch, "DEPTH", depth),
        patch.object(triton_ops, "DEPTH", depth),
        patch.object(launch, "CHUNK", chunk),
        patch.object(launch.ScanShape, "most_registers", limit),
    ):
        got = torch.autograd.grad(call().float().sum(), leaves)
        values = times("both scans", shape, dtype, "triton", sizes)
    error = max(float((one - other).float().norm() / (other.float().norm() + 1e-9)) for one, other in zip(got, want, strict=True))
    return {**values, "difference, relative": error}
