"""Tables: a training step of vim_tiny and mambavision_t on a CPU, one thread: against the same step with the scan as a loop, and where the time goes.

With --gpu: images/s of training and inference on a CUDA device, fp32 and bf16, with mamba-ssm's kernels (slurm/install_cuda.sh), of this package's
composition of them and of the official one (benchmarks/official.py), after their logits have been compared.
"""

import argparse
import statistics
import time
from collections import Counter

import torch
import torch.nn.functional as F
from torch import nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.official import composed_officially, upstream_kernels
from benchmarks.scan import processor
from jobs.memory import keep_freed_memory
from models.registry import create_model

MODELS = ("vim_tiny", "mambavision_t")
# The first group with a part of an operator's name has its time.
GROUPS: dict[str, tuple[str, ...]] = {
    "scan": ("selective_scan",),
    "convolution over tokens": ("conv1d_silu",),
    "projections, MLPs": ("aten::mm", "aten::addmm", "aten::bmm"),
    "attention": ("scaled_dot_product", "flash_attention"),
    "convolutions over the map": ("conv",),
    "norms": ("norm",),
}


def step(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
    """One training step."""
    optimizer.zero_grad(set_to_none=True)
    F.cross_entropy(model(images).float(), labels).backward()
    optimizer.step()


def made(
    name: str, batch: int, scan_backend: str, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[nn.Module, torch.Tensor, torch.Tensor, torch.optim.Optimizer]:
    """A model, a batch and an optimizer."""
    torch.manual_seed(0)
    model = create_model(name, scan_backend=scan_backend).to(device, dtype)
    images, labels = torch.randn(batch, 3, 224, 224, device=device, dtype=dtype), torch.randint(1000, (batch,), device=device)
    return model, images, labels, torch.optim.AdamW(model.parameters())


def step_s(name: str, batch: int, scan_backend: str, repeats: int) -> float:
    """Seconds of a training step on the CPU: median after a warm-up; the first alone when it takes over 10 s."""
    parts = made(name, batch, scan_backend)
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        step(*parts)
        times.append(time.perf_counter() - start)
        if times[0] > 10:
            return times[0]
    return statistics.median(times[1:])


def shares(name: str, batch: int) -> Counter[str]:
    """Share of a step's time by group of operators, forward and backward together."""
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


def made_for_gpu(name: str, batch: int, dtype: torch.dtype, official: bool) -> tuple[nn.Module, torch.Tensor, torch.Tensor, torch.optim.Optimizer]:
    """`made` on the GPU, the mixers composed as the official code composes them if so asked."""
    model, *others = made(name, batch, "cuda", "cuda", dtype)
    return (composed_officially(model, *upstream_kernels()) if official else model, *others)  # type: ignore[return-value]


def images_per_s(name: str, batch: int, dtype: torch.dtype, official: bool, train: bool) -> float:
    """Images a second on the GPU: the median of five times ten steps, after three to warm up."""
    model, images, labels, optimizer = made_for_gpu(name, batch, dtype, official)
    model.train(train)

    def run() -> None:
        if train:
            step(model, images, labels, optimizer)
        else:
            with torch.no_grad():
                model(images)

    for _ in range(3):
        run()
    times = []
    for _ in range(5):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(10):
            run()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return 10 * batch / statistics.median(times)


def check_agreement(name: str) -> None:
    """Raises AssertionError unless both compositions give the same fp32 logits, to the tolerance of upstream's own tests."""
    logits = []
    for official in (False, True):
        model, images, *_ = made_for_gpu(name, 2, torch.float32, official)
        with torch.no_grad():
            logits.append(model.eval()(images))
    torch.testing.assert_close(logits[1], logits[0], rtol=6e-4, atol=2e-3)


def on_cpu(batch: int) -> None:
    """Prints the tables of the CPU."""
    torch.set_num_threads(1)
    print(f"{processor()}, 1 thread, torch {torch.__version__}, fp32, 224 px, batch {batch}\n")
    plain = {name: step_s(name, batch, "reference", 1) for name in MODELS}  # as torch has it, before memory is kept
    keep_freed_memory()  # as a job does
    print("| training step | C++ scan, s | loop, s | times as long | loop, torch's own use of memory, s | times as long |")
    print("|---|---:|---:|---:|---:|---:|")
    for name in MODELS:
        kernel, loop = step_s(name, batch, "auto", 5), step_s(name, batch, "reference", 1)
        print(f"| {name} | {kernel:.2f} | {loop:.2f} | {loop / kernel:.1f} | {plain[name]:.2f} | {plain[name] / kernel:.1f} |", flush=True)
    print("\n| share of a step | " + " | ".join(MODELS) + " |\n|---|---:|---:|")
    spent = [shares(name, batch) for name in MODELS]
    for group in (*GROUPS, "elementwise, copies, optimizer"):
        print(f"| {group} | " + " | ".join(f"{part[group]:.0%}" for part in spent) + " |")


def on_gpu(batch: int) -> None:
    """Prints the table of the GPU."""
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, 224 px, batch {batch}, images/s\n")
    print("| model | dtype | composition | training | inference |\n|---|---|---|---:|---:|")
    for name in MODELS:
        check_agreement(name)
        for dtype in (torch.float32, torch.bfloat16):
            for composition in ("ours", "official"):
                train, infer = (images_per_s(name, batch, dtype, composition == "official", train) for train in (True, False))
                print(f"| {name} | {str(dtype).removeprefix('torch.')} | {composition} | {train:.0f} | {infer:.0f} |", flush=True)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--batch", type=int, help="images of a step; default 8, on a GPU 128")
    arguments = parser.parse_args()
    on_gpu(arguments.batch or 128) if arguments.gpu else on_cpu(arguments.batch or 8)


if __name__ == "__main__":
    main()
