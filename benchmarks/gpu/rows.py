"""Rows of measurements, and the process that measures those of one section."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.gpu.sizes import Sizes

Values = dict[str, float | str | None]
MARK = "@row "  # begins a line of a section's process that holds a row; packages print what they like


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is measured, in words, and the function that does it."""

    labels: dict[str, str]
    measure: Callable[[], Values]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A table of the page. `seconds`: after which it is ended, measured or not."""

    title: str
    about: str
    rows: Callable[[Sizes], list[Row]]
    seconds: float


class Broken(Exception):
    """The device answers nothing any more after an error of a kernel: another process must go on."""


def measured(rows: list[Row], first: int = 0) -> Iterator[tuple[int, Values]]:
    """(number, values) of each row from `first` on. A row that fails has its error as value. Raises Broken after one that took the device along."""
    for number, row in enumerate(rows[first:], first):
        began, broken = time.perf_counter(), False
        try:
            values = row.measure()
        except Exception as error:  # whatever a kernel, a package or a driver may raise
            values, broken = {"error": in_short(error)}, is_sticky(error)
        release()
        yield number, values | {"took, s": round(time.perf_counter() - began, 1)}
        if broken:
            raise Broken(values["error"])


def in_short(error: Exception) -> str:
    """An error in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:300]


def is_sticky(error: Exception) -> bool:
    """True for an error after which CUDA refuses every call of this process. Running out of memory is none."""
    import torch

    return isinstance(error, torch.AcceleratorError) and not isinstance(error, torch.OutOfMemoryError)


def release() -> None:
    """Frees what a row held."""
    from jobs.parallel.memory import free_unused

    try:
        free_unused()
    except RuntimeError:  # a device that is gone
        return


def serve(section: Section, sizes: Sizes, first: int) -> int:
    """Measures the rows of a section in this process and prints each as it comes."""
    prepare(sizes)
    try:
        for number, values in measured(section.rows(sizes), first):
            print(MARK + json.dumps([number, values]), flush=True)
    except Broken:
        return 3
    return 0


def prepare(sizes: Sizes) -> None:
    """Sets torch as a job does: fp32 means fp32, and cuDNN repeats itself."""
    import torch

    from jobs.parallel.precision import set_precision

    set_precision("fp32")
    torch.backends.cudnn.deterministic = True
    torch.manual_seed(0)
    if sizes.device == "cpu":
        torch.set_num_threads(1)
    if sizes.device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch sees no GPU here; --device cpu tries the same code at small sizes")
