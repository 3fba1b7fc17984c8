"""A table: seconds and extra memory to choose a global magnitude mask over 100 million weights, against torch.nn.utils.prune.

Each contestant runs in its own process, once for warm-up and three times for the measurement: median wall and CPU seconds, and the growth of the
resident set (Linux) over that of the weights and their scores. Both must drop the same number of weights.
"""

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from models.closed_pipe import ends_with_its_reader

LAYERS, SHAPE = 25, (2000, 2000)
SPARSITY = 0.9
REPEATS = 3


def ours() -> tuple[int, float, float, float]:
    """Zeros, wall seconds, CPU seconds and extra MB of `models.pruning.masks.choose`."""
    import torch

    from models.pruning.masks import choose

    def prepare() -> dict[str, torch.Tensor]:
        return {str(layer): torch.rand(SHAPE) for layer in range(LAYERS)}

    def zeros(scores: dict[str, torch.Tensor]) -> int:
        return sum(mask.numel() - int(mask.count_nonzero()) for mask in choose(scores, SPARSITY, "global").values())

    return measure(prepare, zeros)


def torch_prune() -> tuple[int, float, float, float]:
    """Zeros, wall seconds, CPU seconds and extra MB of torch.nn.utils.prune.global_unstructured, whose masks are floats."""
    import torch
    from torch.nn.utils import prune

    def prepare() -> list[torch.nn.Module]:
        return [torch.nn.Linear(*SHAPE, bias=False) for _ in range(LAYERS)]

    def zeros(layers: list[Any]) -> int:
        prune.global_unstructured([(layer, "weight") for layer in layers], pruning_method=prune.L1Unstructured, amount=SPARSITY)
        return sum(layer.weight_mask.numel() - int(layer.weight_mask.count_nonzero()) for layer in layers)

    return measure(prepare, zeros)


def measure(prepare: Callable[[], Any], run: Callable[[Any], int]) -> tuple[int, float, float, float]:
    """The result of a contestant, its median times, and its largest growth of memory over that of the prepared tensors."""
    run(prepare())
    walls, times, growths, count = [], [], [], 0
    for _ in range(REPEATS):
        prepared = prepare()
        Path("/proc/self/clear_refs").write_text("5")
        before, wall, cpu = resident_mb("VmRSS"), time.perf_counter(), time.process_time()
        count = run(prepared)
        walls.append(time.perf_counter() - wall)
        times.append(time.process_time() - cpu)
        growths.append(resident_mb("VmHWM") - before)
        del prepared
    return count, statistics.median(walls), statistics.median(times), max(growths)


def resident_mb(field: str) -> float:
    """A field of this process's memory status, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


@ends_with_its_reader
def main() -> None:
    """Prints the table."""
    print(f"{'global threshold, 100,000,000 weights':44}{'zeros':>12}{'wall s':>8}{'CPU s':>8}{'extra MB':>10}")
    for name, contestant in (("models.pruning.masks.choose", ours), ("torch.nn.utils.prune.global_unstructured", torch_prune)):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            zeros, wall_s, cpu_s, extra_mb = pool.submit(contestant).result()
        print(f"{name:44}{zeros:>12,}{wall_s:>8.2f}{cpu_s:>8.2f}{extra_mb:>10,.0f}")


if __name__ == "__main__":
    main()
