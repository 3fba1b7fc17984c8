"""Tables: a training step of vim_tiny and mambavision_t on a CPU, one thread, against the same step with a loop as scan, and its time by operator.

Every step is timed in its own process, with torch's default use of memory, and with freed memory kept, as in jobs: the loops allocate and free
gigabytes per step, so much of their time goes into the system's pages.

For a GPU: `python -m benchmarks.gpu`.
"""

import argparse
import itertools
import statistics
import subprocess
import sys
import time
from collections import Counter

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.scan import processor, scan_by_unbind
from jobs.parallel.memory import keep_freed_memory
from models.closed_pipe import ends_with_its_reader
from models.registry import create_model

MODELS = ("vim_tiny", "mambavision_t")
SCANS = {"cpu": "C++ scan", "unbind": "loop with unbind", "reference": "backend reference"}
# An operator's time goes to the first group with a part of its name.
GROUPS: dict[str, tuple[str, ...]] = {
    "scan": ("selective_scan",),
    "convolution over tokens": ("conv1d_silu",),
    "projections, MLPs": ("aten::mm", "aten::addmm", "aten::bmm"),
    "attention": ("scaled_dot_product", "flash_attention"),
    "convolutions over the map": ("conv",),
    "norms": ("norm",),
}


def step(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Runs a training step."""
    optimizer.zero_grad(set_to_none=True)
    F.cross_entropy(model(images).float(), labels).backward()
    optimizer.step()


def made(
    name: str, batch: int, scan_backend: str, device: str = "cpu", dtype: torch.dtype = torch.float32, img_size: int = 224
) -> tuple[nn.Module, torch.Tensor, torch.Tensor, torch.optim.Optimizer]:
    """A model, a batch and an optimizer."""
    torch.manual_seed(0)
    model = create_model(name, img_size=img_size, scan_backend=scan_backend).to(device, dtype)
    images, labels = torch.randn(batch, 3, img_size, img_size, device=device, dtype=dtype), torch.randint(1000, (batch,), device=device)
    return model, images, labels, torch.optim.AdamW(model.parameters())


def loop_with_unbind(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    *,
    delta_bias: Tensor,
    z: Tensor | None = None,
    reverse: bool = False,
    **_: object,
) -> Tensor:
    """The loop of benchmarks/scan.py with Delta's bias and the gate, as a replacement of `selective_scan`."""
    sequences = [tensor.flip(-1) if reverse else tensor for tensor in (u, delta + delta_bias.unsqueeze(-1), B, C)]
    y = scan_by_unbind(sequences[0], sequences[1], A, sequences[2], sequences[3], D)
    y = y.flip(-1) if reverse else y
    return y if z is None else y * F.silu(z)


def with_scan(name: str, batch: int, scan: str, img_size: int = 224) -> tuple[nn.Module, torch.Tensor, torch.Tensor, torch.optim.Optimizer]:
    """`made`, with a scan of SCANS in its mixers."""
    parts = made(name, batch, "reference" if scan == "reference" else "auto", img_size=img_size)
    for module in parts[0].modules():
        if scan == "unbind" and hasattr(module, "scan"):
            module.scan = loop_with_unbind
    return parts


def print_step_s(name: str, batch: int, scan: str, keep: bool) -> None:
    """Prints the number for `step_s`, in its child process: the median of five steps after two for warm-up."""
    torch.set_num_threads(1)
    if keep:
        keep_freed_memory()
    parts, times = with_scan(name, batch, scan), []
    for _ in range(7):
        start = time.perf_counter()
        step(*parts)
        times.append(time.perf_counter() - start)
    print(statistics.median(times[2:]))


def step_s(name: str, batch: int, scan: str, keep: bool) -> float:
    """Seconds of a training step in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.steps", "--batch", str(batch), "--step-of", name, "--scan", scan, *(["--keep"] if keep else [])]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def shares(name: str, batch: int) -> Counter[str]:
    """Fraction of a step's time by group of operators, forward and backward together."""
    parts = made(name, batch, "auto")
    step(*parts)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        step(*parts)
    spent: Counter[str] = Counter()
    for event in profiled.key_averages():
        group = next((group for group, names in GROUPS.items() if any(part in event.key for part in names)), "elementwise, copies, optimizer")
        spent[group] += event.self_cpu_time_total
    total = sum(spent.values())
    return Counter({group: time / total for group, time in spent.items()})


def on_cpu(batch: int) -> None:
    """Prints the tables of the CPU."""
    torch.set_num_threads(1)
    print(f"{processor()}, 1 thread, torch {torch.__version__}, fp32, 224 px, batch {batch}\n")
    titles = [f"{title}, s" + (" | times as long" if scan != "cpu" else "") for scan, title in SCANS.items()]
    print(f"| training step | memory | {' | '.join(titles)} |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for name, keep in itertools.product(MODELS, (False, True)):
        took = {scan: step_s(name, batch, scan, keep) for scan in SCANS}
        row = " | ".join(f"{took[scan]:.2f}" + (f" | {took[scan] / took['cpu']:.1f}" if scan != "cpu" else "") for scan in SCANS)
        print(f"| {name} | {'kept, as jobs do' if keep else 'as torch has it'} | {row} |", flush=True)
    keep_freed_memory()
    print("\n| share of a step | " + " | ".join(MODELS) + " |\n|---|---:|---:|")
    spent = [shares(name, batch) for name in MODELS]
    for group in (*GROUPS, "elementwise, copies, optimizer"):
        print(f"| {group} | " + " | ".join(f"{part[group]:.0%}" for part in spent) + " |")


@ends_with_its_reader
def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=8, help="images of a step; default: 8")
    parser.add_argument("--step-of", choices=MODELS, help="print the seconds of this model's step alone")
    parser.add_argument("--scan", choices=list(SCANS), default="cpu", help="with --step-of")
    parser.add_argument("--keep", action="store_true", help="with --step-of: keep freed memory, as jobs do")
    arguments = parser.parse_args()
    if arguments.step_of:
        return print_step_s(arguments.step_of, arguments.batch, arguments.scan, arguments.keep)
    on_cpu(arguments.batch)


if __name__ == "__main__":
    main()
