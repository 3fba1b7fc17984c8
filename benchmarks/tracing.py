"""A table: what a training step and a forward pass launch on a GPU, counted without one: `python -m benchmarks.tracing`.

Networks run on meta tensors, which have shapes and no numbers, along the path of a GPU's backend. An operation that is no view is a launch or more.
Bytes are those of its inputs and outputs, each once. A transposing copy is one into another memory layout; it moves its bytes at half the speed. Scan
and convolution are an operation each, forward and backward, whatever they launch within.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.official import composed_officially
from models.closed_pipe import ends_with_its_reader
from models.registry import create_model

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
COPIES = ("clone", "_to_copy", "copy_", "contiguous")
# operations that launch nothing
FREE = frozenset(
    "view t transpose permute expand slice select split split_with_sizes unsqueeze squeeze detach alias _unsafe_view as_strided unbind unfold narrow "
    "lift_fresh _reshape_alias is_same_size diagonal chunk empty empty_like new_empty empty_strided new_empty_strided empty_permuted".split()
)


class Trace(TorchDispatchMode):
    """Counts operations, bytes and transposing copies."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()
        self.bytes = 0
        self.transposing = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        name = function._schema.name.partition("::")[2]
        if name not in FREE:
            given, made = ([part for part in tree_leaves(tree) if isinstance(part, Tensor)] for tree in ((args, kwargs), result))
            self.operations[name] += 1
            self.bytes += moved(name, given, made)
            self.transposing += name in COPIES and bool(made) and layout(given[-1] if name == "copy_" else given[0]) != layout(made[0])
        return result

    @property
    def total(self) -> int:
        """All operations."""
        return sum(self.operations.values())


def moved(name: str, given: list[Tensor], made: list[Tensor]) -> int:
    """Bytes that an operation reads and writes."""
    return 2 * occupied(given[0]) if name == "copy_" else sum(map(occupied, (*given, *made)))


def occupied(tensor: Tensor) -> int:
    """Bytes of the memory behind a tensor; an expanded dimension has none of its own."""
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)) + 1
    return min(tensor.numel(), max(1, reach)) * tensor.element_size()


def layout(tensor: Tensor) -> list[int]:
    """The dimensions of more than one element, from the slowest in memory to the fastest."""
    return sorted((at for at in range(tensor.ndim) if tensor.shape[at] > 1), key=lambda at: -tensor.stride(at))


def causal_conv1d_fn(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None) -> Tensor:
    """causal-conv1d's function as one operation; nothing is computed."""
    from models.ssm.conv import _forward

    y: Tensor = _forward(x, weight.unsqueeze(1), bias, weight.shape[-1] - 1, False)
    return y


def selective_scan_fn(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor | None = None,
                      delta_bias: Tensor | None = None, delta_softplus: bool = False) -> Tensor:  # fmt: skip
    """mamba-ssm's function as one operation; nothing is computed."""
    from models.ssm.cuda import _scan

    y: Tensor = _scan(u, delta, A, B.unsqueeze(1), C.unsqueeze(1), D, z, delta_bias, delta_softplus)[0]
    return y


def network(name: str, dtype: str, way: str, img_size: int) -> nn.Module:
    """A network on meta tensors. `way`: triton, cuda (mamba-ssm's kernels) or official (the official code's composition of them)."""
    with torch.device("meta"):
        model = create_model(name, img_size=img_size, scan_backend="cuda" if way == "official" else way).to(DTYPES[dtype])
    return composed_officially(model, selective_scan_fn, causal_conv1d_fn) if way == "official" else model


def traced(name: str, *, dtype: str = "bf16", way: str = "triton", train: bool = True, batch: int = 128, img_size: int = 224) -> Trace:
    """The trace of a step without its optimizer, or of a forward pass."""
    module = ModuleType("causal_conv1d")
    vars(module)["causal_conv1d_fn"] = causal_conv1d_fn
    model = network(name, dtype, way, img_size).train(train)
    images = torch.empty(batch, 3, img_size, img_size, device="meta", dtype=DTYPES[dtype], memory_format=torch.channels_last)  # as from a loader
    labels = torch.empty(batch, device="meta", dtype=torch.long)
    run: Callable[[], object] = lambda: functional.cross_entropy(model(images).float(), labels).backward()  # type: ignore[no-untyped-call]  # noqa: E731
    with patch.dict(sys.modules, {"causal_conv1d": module}), torch.set_grad_enabled(train), Trace() as trace:
        run() if train else model(images)
    return trace


@ends_with_its_reader
def main(words: list[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["vim_tiny", "mambavision_t", "vmamba_tiny_s1l8", "vssd_tiny"])
    parser.add_argument("--batch", type=int, default=128)
    given = parser.parse_args(words)
    print(f"torch {torch.__version__}, batch {given.batch}, 224 px\n\n| network | dtype | work | kernels | operations | GB | transposing copies |")
    print("|---|---|---|---|---:|---:|---:|")
    names = {"triton": "Triton", "cuda": "mamba-ssm", "official": "official composition"}
    for name in given.models:
        ways = ("triton", "cuda", "official") if name.startswith(("vim", "mambavision")) else ("triton",)
        for dtype, train in (("bf16", True), ("fp32", True), ("fp32", False)):
            for way in ways:
                trace = traced(name, dtype=dtype, way=way, train=train, batch=given.batch)
                work = "training" if train else "inference"
                print(f"| {name} | {dtype} | {work} | {names[way]} | {trace.total:,} | {trace.bytes / 1e9:.1f} | {trace.transposing} |", flush=True)


if __name__ == "__main__":
    main()
