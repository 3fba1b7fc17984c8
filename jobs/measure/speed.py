"""How fast networks run, measured beside each other: contestants take turns in a shuffled order, so that what slows the machine slows them all."""

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

Run = Callable[[], object]
ROUNDS = 10  # turns of each contestant; fewer, and 3 at least, where a single call takes longer than its share of a turn
GROUP = 5  # calls whose median is one look at the pace while warming up
STABLE = 0.05
FASTER = 1.05  # what a mask's network must be in every turn to count as faster: less is noise of caches and clocks


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One contestant's times in seconds."""

    calls_s: tuple[float, ...]  # every call
    turns_s: tuple[float, ...]  # mean of the calls of each turn
    stable: bool  # whether the warm-up ended because the pace had settled

    @property
    def median_s(self) -> float:
        """Seconds of a call: the median over turns."""
        return statistics.median(self.turns_s)

    def percentile_s(self, percent: int) -> float | None:
        """So many percent of the calls were not slower; None with fewer calls than can tell (10 for 90%, 100 for 99%)."""
        if len(self.calls_s) < 100 / (100 - percent):
            return None
        return statistics.quantiles(self.calls_s, n=100, method="inclusive")[percent - 1] if len(self.calls_s) > 1 else self.calls_s[0]


def race(runs: Mapping[str, Run], device: torch.device, seconds: float, *, alone: bool) -> dict[str, Timing]:
    """The times of each contestant, all warm, in turns of equal length. `seconds`: for the turns of all of them together.

    `alone`: the device is idle when a call begins, as for a single request; else calls follow each other, as in a stream of batches.
    """
    share = seconds / len(runs)
    warm = {name: warm_up(run, device, share, alone=alone) for name, run in runs.items()}
    calls = {name: max(1, round(share / ROUNDS / pace)) for name, (pace, _) in warm.items()}
    turn_s = sum(calls[name] * pace for name, (pace, _) in warm.items())
    turns = min(ROUNDS, max(3, round(seconds / turn_s)))
    order, found = random.Random(0), {name: list[list[float]]() for name in runs}
    for _ in range(turns):
        for name in order.sample(list(runs), len(runs)):
            found[name].append(timed(runs[name], device, calls[name], alone=alone))
    return {
        name: Timing(
            calls_s=tuple(time_s for turn in turns_s for time_s in turn),
            turns_s=tuple(statistics.fmean(turn) for turn in turns_s),
            stable=warm[name][1],
        )
        for name, turns_s in found.items()
    }


def warm_up(run: Run, device: torch.device, limit_s: float, *, alone: bool) -> tuple[float, bool]:
    """Seconds of a call once the pace has settled, and whether it has.

    Settled: the medians of the last two groups of five calls differ by less than 5%. It ends unsettled after `limit_s`, in seconds of calls. What the
    first call takes once and for all is no pace, and counts for neither.
    """
    timed(run, device, 1, alone=alone)
    times: list[float] = []
    while True:
        times += timed(run, device, 1, alone=alone)
        if len(times) >= 2 * GROUP and len(times) % GROUP == 0:
            before, now = (statistics.median(group) for group in (times[-2 * GROUP : -GROUP], times[-GROUP:]))
            if abs(now - before) < STABLE * before:
                return now, True
        if sum(times) >= limit_s:
            return statistics.median(times[-GROUP:]), False


def timed(run: Run, device: torch.device, calls: int, *, alone: bool) -> list[float]:
    """Seconds of each call, by CUDA events on a GPU."""
    if device.type == "cuda":
        return timed_by_events(run, device, calls, alone=alone)
    times = []
    for _ in range(calls):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return times


def timed_by_events(run: Run, device: torch.device, calls: int, *, alone: bool) -> list[float]:
    """Seconds of each call between two events in the GPU's own queue, which is empty before the first; before every call where it is `alone`."""
    marks = []
    with torch.cuda.device(device):
        torch.cuda.synchronize()
        for _ in range(calls):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            run()
            end.record()
            marks.append((start, end))
            if alone:
                torch.cuda.synchronize()
        torch.cuda.synchronize()
    return [start.elapsed_time(end) / 1e3 for start, end in marks]


def speedups(own: Timing, dense: Timing) -> list[float]:
    """dense's time / own time, turn by turn: the two ran within moments of each other."""
    return [theirs / ours for ours, theirs in zip(own.turns_s, dense.turns_s, strict=True)]


def speedup(own: Timing, dense: Timing, *, same_kernels: bool) -> float:
    """How many times as fast as dense: the median over turns.

    `same_kernels`: nothing but zeros tells the two apart (an unstructured mask). That is 1.0 by definition, unless it was faster by 5% in every one of
    ten turns: three can be so by chance.
    """
    ratios = speedups(own, dense)
    faster = len(ratios) >= ROUNDS and min(ratios) >= FASTER
    return 1.0 if same_kernels and not faster else statistics.median(ratios)


def clock_mhz(device: torch.device) -> float | None:
    """The clock of the device at this moment, mean over cores; None where the machine does not tell."""
    if device.type == "cuda":
        return gpu_clock_mhz(device)
    import psutil

    found = psutil.cpu_freq()
    return float(found.current) if found and found.current else None


def gpu_clock_mhz(device: torch.device) -> float | None:
    """The clock of the GPU's multiprocessors, None where the driver does not tell."""
    try:
        return float(torch.cuda.clock_rate(device))
    except (ImportError, RuntimeError):
        return None


def protocol(device: torch.device, dtype: torch.dtype, batches: Sequence[int]) -> str:
    """How speeds are measured, in a sentence: what two numbers must share to be compared."""
    timer = "CUDA events" if device.type == "cuda" else "perf_counter"
    short = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}.get(dtype, str(dtype))
    if device.type == "cuda" and dtype == torch.float32 and torch.backends.cudnn.allow_tf32:
        short += " (convolutions TF32)"
    return (
        f"forward pass, {short}, batch {' and '.join(map(str, batches))}; warm until the medians of {GROUP} calls differ by less than {STABLE:.0%}; "
        f"turns shuffled with dense; median of turns; {timer}"
    )
