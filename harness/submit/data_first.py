"""Data sets that are written before the jobs that train on them are started, and what the user sees meanwhile."""

import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harness.plan.preflight import files_of
from harness.text import counted, duration
from jobs.experiment.cell import Cell
from jobs.experiment.specs import ClusterSpec, DataSpec
from models.plugins.tables import origin

if TYPE_CHECKING:
    from jobs.data.writing import Progress

LINE_EVERY_S = 30.0  # between progress lines where there is no terminal
REDRAWN_EVERY_S = 0.2  # where there is one
DECODED = ("imagefolder", "huggingface", "webdataset")  # sources whose images take long to encode
MEASURED = 100  # images that give a rate: before, the start of the processes counts most
QUICK_SAMPLES = 20_000  # of `synthetic`, that take seconds


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def data_sets(cells: Iterable[Cell]) -> list[DataSpec]:
    """The data sets of cells, each once, however they are evaluated: that is no part of what is written."""
    return files_of(list(cells))


def missing(cluster: ClusterSpec, data: Iterable[DataSpec]) -> list[DataSpec]:
    """Those data sets whose files are not written yet, each once. DataError, OSError if their source cannot be read."""
    from jobs.data.prepare import data_folder
    from jobs.data.writing import is_written

    folders = {data_folder(spec, Path(cluster.cache), cluster.hash_data): spec for spec in data}
    return [spec for folder, spec in folders.items() if folder is not None and not is_written(folder)]


def written_here(data: DataSpec) -> bool:
    """True for a data set that a launch writes itself in seconds, also on a login node."""
    if origin("data", data.source):  # who knows how long a plug-in takes
        return False
    return data.source not in DECODED and (data.source != "synthetic" or data.samples <= QUICK_SAMPLES)


def prepare_here(cluster: ClusterSpec, data: Sequence[DataSpec], *, workers: int, quiet: bool = False) -> bool:
    """True if the data sets are written, by processes of this machine. quiet: says nothing of those that were ready."""
    from jobs.data.prepare import DataError, prepare

    try:
        to_write = missing(cluster, data)
        if not quiet and not to_write:
            print(f"nothing to do: {counted(len(data), 'data set')} ready in {cluster.cache}")
        for spec in to_write:
            with Lines(spec) as lines:
                dataset = prepare(spec, Path(cluster.cache), by_content=cluster.hash_data, workers=workers, report=lines)
            print(f"{title(spec)}: ready in {dataset.train.parent}", flush=True)
    except DataError as error:
        print(error, file=sys.stderr)
        return False
    return True


def title(data: DataSpec) -> str:
    """A data set in a few words."""
    return data.name or (f"{data.source} {data.path}" if data.path else data.source)


@dataclass
class Lines:
    """Shows the progress of one data set: a line that changes in a terminal, plain lines elsewhere."""

    data: DataSpec
    started: float = field(default_factory=time.monotonic)
    last_line: float = 0.0
    announced: bool = False
    assembling: bool = False

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *error: object) -> None:
        self.clear()

    def __call__(self, progress: "Progress") -> None:
        """Shows what is new."""
        if not self.announced:
            self.announced = True
            self.print_line(announcement(self.data, progress))
        if progress.assembling and not self.assembling:
            self.assembling = True
            self.print_line(f"{title(self.data)}: all images are encoded; their files are put together")
        elif time.monotonic() - self.last_line >= (REDRAWN_EVERY_S if sys.stdout.isatty() else LINE_EVERY_S) and progress.here:
            self.last_line = time.monotonic()
            line = described(self.data, progress, time.monotonic() - self.started)
            print(f"\r\033[K{line}" if sys.stdout.isatty() else line, end="" if sys.stdout.isatty() else "\n", flush=True)

    def print_line(self, line: str) -> None:
        """Prints a line that stays."""
        self.clear()
        print(line, flush=True)

    def clear(self) -> None:
        """Removes the line that changes."""
        if sys.stdout.isatty():
            print("\r\033[K", end="", flush=True)


def announcement(data: DataSpec, progress: "Progress") -> str:
    """What is going to be written."""
    from jobs.data.space import shown

    there = f", of which {progress.images:,} are written already" if progress.images else ""
    space = progress.space
    return f"{title(data)}: {progress.total:,} images to write{there}; about {shown(space.needed_bytes)} needed, {shown(space.free_bytes)} free"


def described(data: DataSpec, progress: "Progress", seconds: float) -> str:
    """How far the writing is; its rate and the time left too, once so many images are written that the start no longer counts."""
    written = f"{title(data)}: {progress.images:,} of {progress.total:,} images"
    if progress.here < MEASURED:
        return written
    rate = progress.here / max(seconds, 1e-9)
    left = duration((progress.total - progress.images) / rate)
    return f"{written}, {rate:,.0f} images/s, {left} left"
