"""Compiles the Triton kernels ahead of time for GPUs that need not be there, and prints the registers, shared memory and spills of each:
`python -m benchmarks.triton_builds`. ptxas comes with Triton.

The kernels take sizes as arguments, so a build is distinct by the number of states, dtype, what is given (z, bias) and the number of taps alone.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from models.closed_pipe import ends_with_its_reader

ARCHITECTURES = (80, 90, 100, 120)  # A100, H100 and H200, B200, RTX 50 and RTX PRO 6000
# What the networks run. Vim of every size: 16 states, a gate; MambaVision of every size: 8 states; VMamba: 1 state in 4 groups.
SCANS = {"vim": (16, True), "mambavision": (8, False), "vmamba": (1, False)}
CONVOLUTIONS = {"vim": (4, True), "mambavision": (3, False), "vim+mobilenet(kernel=5)": (5, True)}
NARROW = ("u", "u2", "delta", "delta2", "B", "B2", "C", "C2", "z", "y", "gy", "own", "x", "dx")  # in the dtype of the network
SIZES = ("batch", "length", "channels", "groups", "states", "blocks", "width", "left")
# B and C begin in the middle of a row of x_proj's output, so they are aligned to nothing.
LOOSE = (*SIZES, "B_ptr", "B2_ptr", "C_ptr", "C2_ptr", "B_b", "B_g", "B_l", "C_b", "C_g", "C_l")


@dataclass(frozen=True, kw_only=True)
class Build:
    """A compiled kernel and what it takes of a multiprocessor."""

    kernel: str
    network: str
    dtype: str
    architecture: int
    threads: int
    registers: int  # of a thread
    spilled_bytes: int  # of a thread
    shared_bytes: int  # of a program


@dataclass(frozen=True, kw_only=True)
class Source:
    """A kernel with its constants. Strides in `ones` are 1."""

    function: Any
    network: str
    dtype: str
    constants: dict[str, Any]
    ones: tuple[str, ...]
    warps: int
    most_registers: int | None = None


def sources(dtype: str) -> Iterator[Source]:
    """Every kernel that the networks run in a dtype, in the memory layout (B, L, D)."""
    import triton.language as tl

    from models.ssm import triton_conv, triton_scan
    from models.ssm.launch import DEPTH, LENGTHS, WIDTH, scan_shape

    for network, (states, gate) in SCANS.items():
        shape = scan_shape((1, 64, 197), (1, 1, states, 197), sides=1)
        given = {"SOFTPLUS": True, "REVERSE": 0, "HAS_D": True, "HAS_Z": gate, "HAS_BIAS": True, "WIDE": tl.float32, **shape.constants()}
        ones = ("u_d", "delta_d", "z_d", "y_d", "gy_d", "own_d", "B_n", "C_n")
        kernels = {triton_scan.scan_forward: {"SAVE": True}, triton_scan.scan_backward: {"DEPTH": DEPTH, "HAS_LAST": False}}
        for function, own in kernels.items():
            limit = shape.most_registers if function is triton_scan.scan_backward else None
            yield Source(function=function, network=network, dtype=dtype, constants=given | own, ones=ones, warps=shape.warps, most_registers=limit)
    for network, (taps, bias) in CONVOLUTIONS.items():
        given = {"TAPS": taps, "REVERSE": False, "WIDE": tl.float32, "T": LENGTHS, "W": WIDTH}
        ones = ("x_d", "y_d", "gy_d", "inner_d", "dx_d")
        for function in (triton_conv.conv_forward, triton_conv.conv_backward_taps, triton_conv.conv_backward_x):
            own = given | ({} if function is triton_conv.conv_backward_x else {"HAS_BIAS": bias})
            yield Source(function=function, network=network, dtype=dtype, constants=own, ones=ones, warps=4)


def build(source: Source, architecture: int) -> Build:
    """Compiles a kernel and reads what it takes."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature, constants, multiples = {}, {}, {}
    for at, name in enumerate(source.function.arg_names):
        if name in source.constants or name in source.ones:
            signature[name], constants[(at,)] = "constexpr", source.constants.get(name, 1)
            continue
        pointed = source.dtype if name.removesuffix("_ptr") in NARROW else "fp32"
        signature[name] = f"*{pointed}" if name.endswith("_ptr") else "i32"
        multiples |= {} if name in LOOSE else {(at,): [["tt.divisibility", 16]]}
    target = ASTSource(fn=source.function, signature=signature, constexprs=constants, attrs=multiples)
    compiled = triton.compile(
        target, target=GPUTarget("cuda", architecture, 32), options={"num_warps": source.warps, "maxnreg": source.most_registers}
    )
    registers, stack, _, local = resources(compiled.asm["cubin"])
    return Build(
        kernel=source.function.__name__,
        network=source.network,
        dtype=source.dtype,
        architecture=architecture,
        threads=32 * source.warps,
        registers=registers,
        spilled_bytes=stack + local,
        shared_bytes=compiled.metadata.shared,
    )


def resources(cubin: bytes) -> tuple[int, ...]:
    """(registers, stack, shared, local memory in bytes) of a thread, as cuobjdump reads them."""
    import triton

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(cubin)
        tool = triton.knobs.nvidia.cuobjdump.path
        text = subprocess.run([tool, "-res-usage", str(path)], capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", text)
    if found is None:
        raise RuntimeError(f"cuobjdump does not say what the kernel takes: {text}")
    return tuple(map(int, found.groups()))


def line(built: Build) -> str:
    """A row of the table."""
    name = f"sm_{built.architecture:<4} {built.kernel:20} {built.network:24} {built.dtype}  {built.threads:4} threads"
    return f"{name}  {built.registers:4} registers  {built.spilled_bytes:4} B spilled  {built.shared_bytes:6} B shared"


@ends_with_its_reader
def main(words: list[str] | None = None) -> None:
    """Builds the kernels and prints a line for each, as a table or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architectures", type=int, nargs="+", default=ARCHITECTURES, metavar="SM")
    parser.add_argument("--dtypes", nargs="+", default=("bf16", "fp32"), choices=("bf16", "fp16", "fp32"))
    parser.add_argument("--only", default="", help="kernels whose name begins so")
    parser.add_argument("--network", default="", help="networks whose name begins so")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(words)
    os.environ.pop("TRITON_INTERPRET", None)  # read when Triton is imported
    for architecture in given.architectures:
        for dtype in given.dtypes:
            for source in sources(dtype):
                if not (source.function.__name__.startswith(given.only) and source.network.startswith(given.network)):
                    continue
                done = build(source, architecture)
                print(json.dumps(asdict(done)) if given.json else line(done), flush=True)


if __name__ == "__main__":
    sys.exit(main())
