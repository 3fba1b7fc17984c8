"""Time and memory of sparsegpt on this machine's CPU, by group of layers: `python -m benchmarks.second_order [images] [model ...]`

Each model prunes half of every layer in a process of its own, at 224 px, with its initial weights and smooth random images: neither changes the time.
Seconds are CPU seconds of one thread, which other work on the machine changes little; those in brackets are by the clock. Resident memory is the peak
of the process; `before` is that of the network, its images and all imports.
"""

import os
import resource
import subprocess
import sys
import time
from collections import defaultdict

import torch
from torch import Tensor
from torch.nn import functional

from jobs.worker.environment import cpu_name
from models.closed_pipe import ends_with_its_reader
from models.pruning import products
from models.pruning.registry import create_method
from models.pruning.scope import group_of, prunable_names
from models.pruning.sparsegpt import SparseGPT
from models.registry import create_model

IMAGES, MODELS, SPARSITY = 32, ("vim_base", "mambavision_b"), 0.5
MIB = 1024  # in the unit of ru_maxrss, KiB


def measure(name: str, count: int) -> None:
    """Prints the table of one model."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model, method = create_model(name, 1000).eval(), create_method("sparsegpt", sparsity=SPARSITY)
    assert isinstance(method, SparseGPT)
    images = functional.interpolate(torch.randn(count, 3, 56, 56), 224, mode="bilinear")
    seconds: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])  # of a group: products, solving
    widths: dict[str, list[int]] = defaultdict(list)
    multiply, last = products.input_products, [0.0]

    def timed(*inputs: object, **options: object) -> Tensor:
        began = time.process_time()
        result = multiply(*inputs, **options)  # type: ignore[arg-type]
        last[0] = time.process_time() - began
        return result

    def visit(layer: str, inputs: Tensor) -> None:
        began, weight = time.process_time(), model.get_parameter(layer)
        group = group_of(layer, weight.dim())
        new, _ = method.pruned(layer, weight.detach(), inputs, torch.ones_like(weight, dtype=torch.bool), round(SPARSITY * weight.numel()))
        weight.copy_(new)
        widths[group].append(inputs.shape[-1])
        for at, spent in enumerate((last[0], time.process_time() - began)):
            seconds[group][at] += spent

    products.input_products = timed
    before, load, clock, began = peak(), os.getloadavg()[0], time.monotonic(), time.process_time()
    products.visit_layers(model, prunable_names(model), images, visit)
    whole = time.process_time() - began
    print(f"\n{name}, {count} images: {whole:.0f} s ({time.monotonic() - clock:.0f} s), load {load:.1f} to {os.getloadavg()[0]:.1f}")
    print(f"resident memory: {before} MiB before, {peak()} MiB at the peak\n")
    print("| layers | how many | inputs | products, s | solving, s |\n|---|---:|---:|---:|---:|")
    for group, (multiplied, solved) in sorted(seconds.items(), key=lambda item: -sum(item[1])):
        span = sorted(set(widths[group]))
        inputs = f"{span[0]} to {span[-1]}" if len(span) > 1 else str(span[0])
        print(f"| {group} | {len(widths[group])} | {inputs} | {multiplied:.1f} | {solved:.1f} |")
    multiplied, solved = (sum(part[at] for part in seconds.values()) for at in range(2))
    print(f"| the network itself | | | {whole - multiplied - solved:.1f} | |")
    print(f"| all | {sum(map(len, widths.values()))} | | {whole - solved:.1f} | {solved:.1f} |", flush=True)


def peak() -> int:
    """The largest resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // MIB


@ends_with_its_reader
def main() -> None:
    """Measures the models one after another."""
    count, models = int(sys.argv[1]) if len(sys.argv) > 1 else IMAGES, sys.argv[2:] or MODELS
    if os.environ.get("SECOND_ORDER_ALONE"):
        measure(models[0], count)
        return
    print(f"{cpu_name()}, torch {torch.__version__}", flush=True)
    for name in models:
        command = [sys.executable, "-m", "benchmarks.second_order", str(count), name]
        subprocess.run(command, check=True, env=os.environ | {"SECOND_ORDER_ALONE": "1"})


if __name__ == "__main__":
    main()
