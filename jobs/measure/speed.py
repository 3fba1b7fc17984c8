"""The speed of networks beside each other. They take turns in a shuffled sequence, so that a slow moment of the machine slows all of them."""

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

Run = Callable[[], object]
ROUNDS = 10  # turns of each contestant; down to 3 where a single call takes longer than a turn
GROUP = 5  # calls of a warm-up whose median is a measurement of the pace
STABLE = 0.05  # largest relative difference of two such medians once the pace has settled
FASTER = 1.05  # a masked network counts as faster from this ratio on, in every turn; less is noise of caches and clocks


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One contestant's times in seconds."""

    calls_s: tuple[float, ...]  # every call
    turns_s: tuple[float, ...]  # mean over the calls of each turn
    stable: bool  # the warm-up ended because the pace had settled

    @property
    def median_s(self) -> float:
        """Seconds of a call, as the median over turns."""
        return statistics.median(self.turns_s)

    def quantile_s(self, percent: int) -> float:
        """Seconds that `percent` of the calls did not exceed."""
        return statistics.quantiles(self.calls_s, n=100, method="inclusive")[percent - 1] if len(self.calls_s) > 1 else self.calls_s[0]

    def percentile_s(self, percent: int) -> float | None:
        """`quantile_s`; None with too few calls for it (10 for 90%, 100 for 99%)."""
        return None if len(self.calls_s) < 100 / (100 - percent) else self.quantile_s(percent)


def race(runs: Mapping[str, Run], device: torch.device, seconds: float, *, alone: bool) -> dict[str, Timing]:
    """The times of each contestant, after a warm-up, in turns of equal length. `seconds`: for the turns of all of them together.

    `alone`: the device is idle when a call begins, as for a single request. Otherwise calls follow each other, as in a stream of batches.
    """
    seconds_each = seconds / len(runs)
    warm = {name: warm_up(run, device, seconds_each, alone=alone) for name, run in runs.items()}
    calls = {name: max(1, round(seconds_each / ROUNDS / pace)) for name, (pace, _) in warm.items()}
    turn_s = sum(calls[name] * pace for name, (pace, _) in warm.items())
    turns = min(ROUNDS, max(3, round(seconds / turn_s)))
    shuffler, times = random.Random(0), {name: list[list[float]]() for name in runs}
    for _ in range(turns):
        for name in shuffler.sample(list(runs), len(runs)):
            times[name].append(timed(runs[name], device, calls[name], alone=alone))
    return {
        name: Timing(
            calls_s=tuple(time_s for turn in turns_s for time_s in turn),
            turns_s=tuple(statistics.fmean(turn) for turn in turns_s),
            stable=warm[name][1],
        )
        for name, turns_s in times.items()
    }


def warm_up(run: Run, device: torch.device, limit_s: float, *, alone: bool) -> tuple[float, bool]:
    """Seconds of a call once the pace has settled, and whether it has.

    It has settled when the medians of the last two groups of five calls differ by less than 5%. The warm-up ends unsettled after `limit_s`, in
    seconds of calls. The first call counts for neither, because it includes work that is done only once.
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
    """Seconds of each call between two events in the GPU's queue, which is empty before the first call, and with `alone` before every call."""
    marks = []
    with torch.cuda.device(device):
        torch.cuda.synchronize()
        for _ in range(calls):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]  # torch has no types for it
            start.record()
            run()
            end.record()
            marks.append((start, end))
            if alone:
                torch.cuda.synchronize()
        torch.cuda.synchronize()
    return [start.elapsed_time(end) / 1e3 for start, end in marks]


def speedups(own: Timing, dense: Timing) -> list[float]:
    """Time of dense / own time for each turn, in which the two ran shortly after each other."""
    return [dense_s / own_s for own_s, dense_s in zip(own.turns_s, dense.turns_s, strict=True)]


def speedup(own: Timing, dense: Timing, *, same_kernels: bool) -> float:
    """How many times as fast as dense, as the median over turns.

    `same_kernels`: the two differ only in zeros (an unstructured mask). Then the speed-up is 1.0 by definition, unless all of ten turns were faster
    by 5%; three turns can be faster by chance.
    """
    ratios = speedups(own, dense)
    faster = len(ratios) >= ROUNDS and min(ratios) >= FASTER
    return 1.0 if same_kernels and not faster else statistics.median(ratios)


def clock_mhz(device: torch.device) -> float | None:
    """The present clock of the device, as the mean over cores; None where the machine does not report it."""
    if device.type == "cuda":
        return gpu_clock_mhz(device)
    import psutil

    frequency = psutil.cpu_freq()
    return float(frequency.current) if frequency and frequency.current else None


def gpu_clock_mhz(device: torch.device) -> float | None:
    """The clock of the GPU's multiprocessors; None where the driver does not report it."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        return float(torch.cuda.clock_rate(device))
    except (ImportError, RuntimeError, pynvml.NVMLError):  # a MIG slice has no clock of its own, and a virtual GPU no right to read it
        return None


def protocol(device: torch.device, dtype: torch.dtype, batches: Sequence[int], words: Sequence[str] = ()) -> str:
    """How speeds are measured, as a sentence. Only speeds with the same protocol can be compared. `words`: what is not plain about the network."""
    timer = "CUDA events" if device.type == "cuda" else "perf_counter"
    short = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}.get(dtype, str(dtype))
    if device.type == "cuda" and dtype == torch.float32 and torch.backends.cudnn.allow_tf32:
        short += " (TF32)"
    return (
        f"forward pass, {', '.join((short, *words))}, batch {' and '.join(map(str, batches))}; "
        f"warm until the medians of {GROUP} calls differ by less than {STABLE:.0%}; turns shuffled with dense; median of turns; {timer}"
    )
