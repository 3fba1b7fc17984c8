"""A table: networks whose tokens merge beside the dense network, in one run, one thread on a CPU.

Weights and images are random: how many tokens leave does not depend on them. The networks take turns in a shuffled sequence; each figure is dense
time / own time, the median over turns, in CPU time of the process, which other processes disturb less than the clock. `merging` is the time that
choosing and averaging tokens takes, timed as part of the forward pass, as a share of it.
"""

import argparse
import copy
import random
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

import models.token_merging
from benchmarks.scan import processor
from benchmarks.steps import step
from jobs.parallel.memory import keep_freed_memory
from models.closed_pipe import ends_with_its_reader
from models.flops import costs
from models.merge_sites import merge_tokens, merging_of
from models.pruning.registry import create_method, method_label
from models.registry import create_model

ROWS: dict[tuple[str, int], list[dict[str, Any]]] = {  # by model and pixels: knobs. R-MeeTo takes r 5 for vim_tiny and r 11 for vim_small
    ("vim_tiny", 224): [
        {"r": 5},
        {"r": 11},
        {"r": 11, "mode": "prune"},
        {"r": 11, "score": "timescale"},
        {"r": 0.5, "layers": (4, 8)},
    ],
    ("vim_small", 224): [{"r": 11}],
    ("vit_tiny", 224): [{"r": 11, "layers": "all"}],
    ("mambavision_t", 224): [{"r": 0.25}],
    ("vim_micro", 32): [{"r": 0.25, "layers": "all"}, {"r": 0.5, "layers": (1,)}],
}


def networks(name: str, size: int, rows: list[dict[str, Any]]) -> dict[str, nn.Module]:
    """The dense network and those whose tokens merge, by label, all of the same weights."""
    torch.manual_seed(0)
    dense, made = create_model(name, img_size=size).eval(), dict[str, nn.Module]()
    for knobs in rows:
        method: Any = create_method("token_merging", **knobs)
        merge_tokens(network := copy.deepcopy(dense), method.merging(dense))
        made[method_label(method).removeprefix("token_merging")] = network
    return {"dense": dense, **made}


def race(runs: Mapping[str, Callable[[], object]], turns: int) -> dict[str, list[float]]:
    """CPU seconds of each run in every turn, after one turn for warm-up."""
    shuffler, times = random.Random(0), {name: list[float]() for name in runs}
    for turn in range(turns + 1):
        for name in shuffler.sample(list(runs), len(runs)):
            began = time.process_time()
            runs[name]()
            if turn:
                times[name].append(time.process_time() - began)
    return times


def ratio(dense: list[float], own: list[float]) -> str:
    """Dense time / own time, the median over turns, with the lowest and the highest of them."""
    ratios = sorted(before / after for before, after in zip(dense, own, strict=True))
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


def inference(made: Mapping[str, nn.Module], images: Tensor, turns: int) -> dict[str, list[float]]:
    """CPU seconds of a forward pass."""
    with torch.inference_mode():
        return race({name: lambda network=network: network(images) for name, network in made.items()}, turns)


def training(made: Mapping[str, nn.Module], images: Tensor, turns: int) -> dict[str, list[float]]:
    """CPU seconds of a training step."""
    labels = torch.zeros(len(images), dtype=torch.int64)

    def stepping(network: nn.Module) -> Callable[[], None]:
        trained = copy.deepcopy(network).train()
        optimizer = torch.optim.AdamW(trained.parameters())
        return lambda: step(trained, images, labels, optimizer)

    return race({name: stepping(network) for name, network in made.items()}, turns)


def share_of_merging(network: nn.Module, images: Tensor, turns: int) -> float:
    """The part of a forward pass in which tokens are chosen and averaged, the median over turns."""
    before, spent = models.token_merging.Tokens.before, [0.0]

    def timed(*given: Any, **options: Any) -> tuple[Tensor, ...]:
        began = time.process_time()
        streams = before(*given, **options)
        spent[0] += time.process_time() - began
        return streams

    shares = []
    models.token_merging.Tokens.before = timed  # type: ignore[method-assign]
    try:
        with torch.inference_mode():
            for _ in range(turns):
                spent[0], began = 0.0, time.process_time()
                network(images)
                shares.append(spent[0] / (time.process_time() - began))
    finally:
        models.token_merging.Tokens.before = before  # type: ignore[method-assign]
    return statistics.median(shares)


def tokens_at_the_end(network: nn.Module) -> str:
    """Patch tokens before the first merge and after the last, in MambaVision of each window."""
    merging = merging_of(network)
    if merging is None:
        return ""
    ends: list[list[int]] = []
    for after, before in merging.tokens.values():
        if ends and ends[-1][1] == before:
            ends[-1][1] = after
        else:
            ends.append([before, after])
    return ", ".join(f"{first} to {last}" for first, last in ends)


def operations(network: nn.Module, size: int) -> int:
    """Multiply-adds and FLOPs of scans of one image."""
    cost = costs(copy.deepcopy(network).to("meta"), size)
    return cost.macs + cost.scan_flops


@ends_with_its_reader
def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--models", nargs="*", default=[name for name, _ in ROWS], help="of the rows; default: all")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    print(f"{processor()}, 1 thread, torch {torch.__version__}, fp32; median of {arguments.turns} turns, lowest and highest in brackets\n")
    print(f"| model | merging | tokens | operations | batch 1 | batch {arguments.batch} | training step | time in merging |")
    print("|---|---|---|" + "---:|" * 5)
    for (name, size), rows in ((key, rows) for key, rows in ROWS.items() if key[0] in arguments.models):
        made, images = networks(name, size, rows), torch.randn(arguments.batch, 3, size, size)
        alone, batch, steps = (
            inference(made, images[:1], arguments.turns),
            inference(made, images, arguments.turns),
            training(made, images, max(3, arguments.turns // 3)),
        )
        for label, network in list(made.items())[1:]:
            fewer = f"{operations(made['dense'], size) / operations(network, size):.2f}"
            speeds = " | ".join(ratio(times["dense"], times[label]) for times in (alone, batch, steps))
            share = share_of_merging(network, images, arguments.turns)
            print(f"| {name} | {label} | {tokens_at_the_end(network)} | {fewer} | {speeds} | {share:.0%} |", flush=True)


if __name__ == "__main__":
    main()
