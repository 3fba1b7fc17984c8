"""A source becomes the two .beton files of a folder, by as many processes as take part, on this machine and on others.

Each process takes shards (`jobs.data.shards`) that no other has claimed, until none is left. One of them then assembles the files. A process that is
killed costs its shard; whoever comes next goes on.

<folder>.shards/    what is written meanwhile, beside
<folder>.refused.json    which images no process can write, for the others that take part
<folder>/           train.beton, test.beton, their digests, source.json. It appears whole
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from jobs.cluster.claims import claimed
from jobs.data.beton import DataError
from jobs.data.content import Content, Part
from jobs.data.encoding import encoded_sample
from jobs.data.shards import Shard, assemble, drop_lost, raise_faults, shards_of, write_shard
from jobs.data.sources import reader_of
from jobs.data.space import Space, checked_space
from jobs.experiment.files import write_json
from jobs.experiment.specs import DataSpec, image_size

NO_SPACE: Final = Space(needed_bytes=0, free_bytes=0)  # before it is known
FEW: Final = 4  # shards that one process writes sooner than it starts others
POLL_S: Final = 0.5  # between two looks at shards that other processes write


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far the writing of a data set is."""

    images: int  # of both files that are encoded, by this process and by others
    total: int
    here: int  # of them by this process and its workers, since they began
    space: Space  # when they began
    assembling: bool = False


Report = Callable[[Progress], None]


def ignore(progress: Progress) -> None:
    """Reports nothing."""


def is_written(folder: Path) -> bool:
    """True if the files of a data set are complete."""
    return (folder / "source.json").exists()


@contextmanager
def readable_source() -> Iterator[None]:
    """Turns an OSError from a file of the source into a DataError that names it."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{error.filename or 'the data'}: {error.strerror or error}: see that this machine can read it, and launch again") from error


def write_source(data: DataSpec, folder: Path, *, workers: int = 0, report: Report = ignore, wait: bool = True) -> None:
    """Fills `folder`. workers: processes; 0, or few images: the threads of this one. wait: for shards that other processes are writing; else it
    returns when it finds no shard to write, and the process that ends last assembles the files.

    All images are tried before a DataError names those that cannot be used, and nothing is left of them. A disk that is too small is told before.
    """
    with readable_source():
        content = reader_of(data.source).read(data, image_size(data))
    writer = Writer(data=data, content=content, folder=folder, report=report)
    try:
        writer.work.mkdir(parents=True, exist_ok=True)
        writer.space = checked_space(data, content, folder, writer.encoded_images())
        while not is_written(folder):
            writer.write_free(workers)
            if whole := writer.complete():
                writer.finish()
            writer.raise_refusal()
            if not whole and not wait:
                return
            if not whole:
                time.sleep(POLL_S)
        shutil.rmtree(writer.work, ignore_errors=True)  # a claim may have been asked for after another process had removed it
    except OSError as error:
        writer.raise_refusal()
        raise OSError(error.errno, error.strerror, str(folder)) from error


def refusal_path(folder: Path) -> Path:
    """Where the process that removes all shards says why no process can write a data set."""
    return folder.with_name(f"{folder.name}.refused.json")


@dataclass(kw_only=True)
class Writer:
    """The part that this process, with its workers, takes in the writing of a data set."""

    data: DataSpec
    content: Content
    folder: Path
    report: Report = ignore
    space: Space = NO_SPACE

    def __post_init__(self) -> None:
        self.work = self.folder.with_name(f"{self.folder.name}.shards")
        self.parts = {"train": self.content.train, "test": self.content.test}
        self.shards = {name: shards_of(self.work, name, len(part.labels)) for name, part in self.parts.items()}
        self.total = sum(len(part.labels) for part in self.parts.values())
        self._refusal_before = self._refusal()

    def _refusal(self) -> tuple[int, str] | None:
        """When another process refused the data, and why; None if none has."""
        try:
            file = refusal_path(self.folder)
            return file.stat().st_mtime_ns, json.loads(file.read_bytes())["message"]
        except FileNotFoundError:
            return None

    def raise_refusal(self) -> None:
        """DataError if another process has found images that cannot be used since this one began; then nothing is left of the shards of both."""
        refusal = self._refusal()
        if refusal is not None and refusal != self._refusal_before:
            shutil.rmtree(self.work, ignore_errors=True)
            raise DataError(refusal[1])

    def all_shards(self) -> Iterator[Shard]:
        """The shards of both files."""
        for shards in self.shards.values():
            yield from shards

    def encoded_images(self) -> int:
        """The images of complete shards. One listing tells them: asking for each would take long on a network's file system."""
        try:
            names = {entry.name for entry in os.scandir(self.work)}
        except FileNotFoundError:  # another process has finished
            names = set()
        return sum(len(shard.samples) for shard in self.all_shards() if shard.path("npy").name in names)

    def complete(self) -> bool:
        """True if no shard is left to write."""
        return self.encoded_images() == self.total

    def write_free(self, workers: int) -> None:
        """Writes every shard that is neither complete nor claimed by another process."""
        if workers and sum(map(len, self.shards.values())) > FEW:
            from jobs.data.workers import in_processes

            in_processes(self, workers)
            return
        before, here = self.encoded_images(), 0

        def tick(images: int) -> None:
            nonlocal here
            here += images
            self.tell(before + here, here)

        self.tell(before)
        self.take_shards(tick, threads=len(os.sched_getaffinity(0)))

    def tell(self, images: int, here: int = 0, assembling: bool = False) -> None:
        """Reports how many images are encoded, by anyone and here."""
        self.report(Progress(images=min(images, self.total), total=self.total, here=here, space=self.space, assembling=assembling))

    def take_shards(self, tick: Callable[[int], None], threads: int = 1) -> None:
        """Claims and writes shards until none is free."""
        for name, part in self.parts.items():
            for shard in self.shards[name]:
                if not shard.done():
                    self.take(shard, part, tick, threads)

    def take(self, shard: Shard, part: Part, tick: Callable[[int], None], threads: int) -> None:
        """Writes a shard unless another process has claimed or written it, or has finished the whole."""
        with claimed(shard.path("lock"), wait=False) as mine:
            if mine and not shard.done() and not is_written(self.folder) and self._refusal() == self._refusal_before:
                write_shard(shard, partial(encoded_sample, self.data, part), threads=threads, tick=tick)

    def finish(self) -> None:
        """Assembles the files from complete shards, unless another process has done that, or shards turn out to be lost.

        DataError that names all images that cannot be used; then nothing is left.
        """
        with claimed(self.folder.with_name(f"{self.folder.name}.lock")):
            if is_written(self.folder) or not self.complete():
                return
            try:
                raise_faults(self.all_shards())
            except DataError as error:
                write_json(refusal_path(self.folder), {"message": str(error)})
                shutil.rmtree(self.work, ignore_errors=True)
                raise
            if drop_lost(self.shards["train"]) | drop_lost(self.shards["test"]):
                return
            self.tell(self.total, assembling=True)
            for name, part in self.parts.items():
                assemble(self.shards[name], part.labels)
            files = self.work / "files"
            described = {"source": self.data.source, "path": self.data.path, "classes": self.content.classes, "names": self.content.names}
            write_json(files / "source.json", described)
            shutil.rmtree(self.folder, ignore_errors=True)  # what a killed writer of version 0.1 left
            files.rename(self.folder)
            refusal_path(self.folder).unlink(missing_ok=True)
            shutil.rmtree(self.work, ignore_errors=True)
