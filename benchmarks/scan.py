"""Tables: the selective scan on a CPU against its peers, one thread: medians of wall-clock times, and the peak memory of each in its own process.

All scans get contiguous fp32 (B, D, L) tensors. Each peer is written as in its source, and all results are compared before they are timed. mambapy's
pscan takes part if it is installed: `pip install --no-deps mambapy==1.2.0`.
"""

import argparse
import importlib.util
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from models.closed_pipe import ends_with_its_reader
from models.ssm.scan import selective_scan

Scan = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
SHAPES = {"Vim-Ti (8, 384, 197), N 16": (8, 384, 197, 16), "the same, length 1024": (8, 384, 1024, 16)}
# For each state of each channel and position: 13 vector operations of 16 lanes forward, most of them for an exponential, and 13 + 21 more with the
# backward pass. At one operation per cycle and 3.7 GHz the Vim-Ti shape takes this long.
ROOFLINE_MS = (2.1, 5.6)
SLOWEST_S = 4.0  # a scan slower than this is timed once


def scan_kernel(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """This package's C++ kernel."""
    return selective_scan(u, delta, A, B, C, D, backend="cpu", delta_softplus=True)


def scan_by_index(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """mamba_ssm's selective_scan_ref: all decays and drives at once, then a loop that indexes them (autograd pays a whole zero tensor for each
    index).
    """
    delta = F.softplus(delta)
    decay = torch.exp(torch.einsum("bdl,dn->bdln", delta, A))
    drive = torch.einsum("bdl,bnl,bdl->bdln", delta, B, u)
    state, outputs = torch.zeros_like(decay[:, :, 0]), []
    for at in range(u.shape[2]):
        state = decay[:, :, at] * state + drive[:, :, at]
        outputs.append(torch.einsum("bdn,bn->bd", state, C[:, :, at]))
    return torch.stack(outputs, dim=2) + u * D.unsqueeze(-1)


def scan_by_unbind(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """The loop of `scan_by_index` over tensors that `unbind` splits once."""
    delta = F.softplus(delta)
    decay = torch.exp(delta.unsqueeze(-1) * A.unsqueeze(1)).unbind(2)
    drive = ((delta * u).unsqueeze(-1) * B.transpose(1, 2).unsqueeze(1)).unbind(2)
    state, outputs = torch.zeros_like(decay[0]), []
    for now_decay, now_drive, readout in zip(decay, drive, C.unbind(2), strict=True):
        state = now_decay * state + now_drive
        outputs.append((state * readout.unsqueeze(1)).sum(-1))
    return torch.stack(outputs, dim=2) + u * D.unsqueeze(-1)


def scan_mambapy(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """mambapy's parallel scan, as its MambaBlock.selective_scan calls it."""
    from mambapy.pscan import pscan

    u, delta = u.transpose(1, 2), F.softplus(delta).transpose(1, 2)
    decay = torch.exp(delta.unsqueeze(-1) * A)
    drive = (delta * u).unsqueeze(-1) * B.transpose(1, 2).unsqueeze(2)
    states = pscan(decay, drive)
    y = (states @ C.transpose(1, 2).unsqueeze(-1)).squeeze(3) + D * u
    return y.transpose(1, 2)


SCANS: dict[str, Scan] = {
    "this package, C++": scan_kernel,
    "loop with unbind": scan_by_unbind,
    "mambapy pscan": scan_mambapy,
    "mamba_ssm selective_scan_ref": scan_by_index,
}


def available() -> dict[str, Scan]:
    """The scans whose packages are installed."""
    return {name: scan for name, scan in SCANS.items() if scan is not scan_mambapy or importlib.util.find_spec("mambapy")}


def inputs(shape: tuple[int, int, int, int]) -> list[Tensor]:
    """u, delta, A, B, C, D with gradients; delta has values as after training."""
    torch.manual_seed(0)
    batch, channels, length, states = shape
    sequences = [torch.randn(batch, channels, length), torch.randn(batch, channels, length) - 3]
    shared = [torch.randn(batch, states, length) for _ in range(2)]
    A = -torch.arange(1.0, states + 1).repeat(channels, 1)
    return [tensor.requires_grad_() for tensor in (*sequences, A, *shared, torch.ones(channels))]


def forward_s(scan: Scan, tensors: list[Tensor]) -> float:
    """Seconds of a forward pass."""
    with torch.no_grad():
        start = time.perf_counter()
        scan(*tensors)  # type: ignore[call-arg]
        return time.perf_counter() - start


def both_s(scan: Scan, tensors: list[Tensor]) -> float:
    """Seconds of a forward and backward pass."""
    start = time.perf_counter()
    y = scan(*tensors)  # type: ignore[call-arg]
    torch.autograd.grad(y, tensors, y.detach())
    return time.perf_counter() - start


def median_ms(measure: Callable[[], float], repeats: int) -> float:
    """Median of `repeats` runs after a warm-up, or the first run if it is slow."""
    first = measure()
    return 1e3 * (first if first > SLOWEST_S else statistics.median(measure() for _ in range(repeats)))


def peak_mb(name: str) -> float:
    """Megabytes that a forward and backward pass adds to a fresh process that holds its inputs."""
    process = subprocess.run([sys.executable, "-m", "benchmarks.scan", "--peak-of", name], capture_output=True, text=True, check=True)
    return float(process.stdout)


def print_peak(name: str) -> None:
    """Prints the number for `peak_mb`, in its child process."""
    torch.set_num_threads(1)
    small = inputs((1, 16, 4, 16))
    both_s(SCANS[name], small)  # loads the libraries of a first call
    tensors = inputs(SHAPES["Vim-Ti (8, 384, 197), N 16"])
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
    both_s(SCANS[name], tensors)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6 - before)


def check_agreement() -> None:
    """Raises AssertionError unless all scans and their gradients agree."""
    tensors, results = inputs((2, 32, 40, 16)), []
    for scan in available().values():
        y = scan(*tensors)  # type: ignore[call-arg]
        results.append((y, *torch.autograd.grad(y.square().sum(), tensors)))
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=1e-3, atol=1e-3)


def processor() -> str:
    """The CPU's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


@ends_with_its_reader
def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peak-of", choices=list(SCANS))
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    if arguments.peak_of:
        return print_peak(arguments.peak_of)
    torch.set_num_threads(1)
    check_agreement()
    print(f"{processor()}, 1 thread, torch {torch.__version__}, fp32; medians of {arguments.repeats}")
    for title, shape in SHAPES.items():
        tensors, base = inputs(shape), None
        print(f"\n{title}\n| scan | forward, ms | forward + backward, ms | times as long | peak, MB |\n|---|---:|---:|---:|---:|")
        for name, scan in available().items():
            if scan is scan_by_index and shape[2] > 512:
                continue  # minutes
            forward = median_ms(lambda scan=scan, tensors=tensors: forward_s(scan, tensors), arguments.repeats)  # type: ignore[misc]
            both = median_ms(lambda scan=scan, tensors=tensors: both_s(scan, tensors), arguments.repeats)  # type: ignore[misc]
            base = base or both
            peak = f"{peak_mb(name):.0f}" if shape[2] < 512 else ""
            print(f"| {name} | {forward:.1f} | {both:.1f} | {both / base:.1f} | {peak} |", flush=True)
        if shape[2] < 512:
            print(f"| arithmetic alone, estimated | {ROOFLINE_MS[0]} | {ROOFLINE_MS[1]} | {ROOFLINE_MS[1] / (base or 1):.2f} | |")


if __name__ == "__main__":
    main()
