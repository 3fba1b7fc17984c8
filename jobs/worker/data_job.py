"""A SLURM job that writes a data set, on CPUs. The jobs of an array share its shards; the last of them puts the files together."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.experiment.files import write_json
from jobs.experiment.output import replace_unencodable
from jobs.experiment.plugins import PluginCopy
from jobs.experiment.specs import DataSpec

if TYPE_CHECKING:
    from jobs.data.writing import Progress

LINE_EVERY_S = 30.0  # between two lines of a log


@dataclass(frozen=True, kw_only=True)
class DataJob:
    """What one job of the array is given."""

    plugins: tuple[PluginCopy, ...] = ()  # that the source needs; unpickling loads them
    data: DataSpec
    cache: str
    by_content: bool
    workers: int  # processes


def write_data(job: DataJob) -> None:
    """Takes part in writing a data set until no shard is left to take. Raises DataError, which is kept for the next launch too."""
    from jobs.data.beton import DataError
    from jobs.data.prepare import data_folder, ready
    from jobs.data.writing import is_written, write_source

    replace_unencodable()
    folder = data_folder(job.data, Path(job.cache), job.by_content)
    if folder is None or is_written(folder):
        return
    try:
        write_source(job.data, folder, workers=job.workers, report=Lines(), wait=False)
    except (DataError, OSError) as error:
        write_json(failure_path(folder), {"message": str(error)})
        raise
    if is_written(folder):
        ready(job.data, Path(job.cache), by_content=job.by_content)  # reads and verifies it now, so that no GPU waits for that
        failure_path(folder).unlink(missing_ok=True)
    print("written" if is_written(folder) else "no shard is left to take: another job writes the last ones", flush=True)


def failure_path(folder: Path) -> Path:
    """Where a job leaves why a data set could not be written."""
    return folder.with_name(f"{folder.name}.failure.json")


def job_path(folder: Path) -> Path:
    """Where it is noted which job writes a data set, and where its logs are."""
    return folder.with_name(f"{folder.name}.job.json")


def images_there(folder: Path) -> int:
    """About how many images of a data set are encoded: those of complete shards, the last of which may be smaller."""
    from jobs.data.shards import SAMPLES

    return SAMPLES * sum(1 for _ in folder.with_name(f"{folder.name}.shards").glob("*.npy"))


def shards_there(job: DataJob) -> object:
    """A value that changes whenever the data set makes progress."""
    from jobs.data.prepare import data_folder

    folder = data_folder(job.data, Path(job.cache), job.by_content)
    return folder and sorted(path.name for path in folder.with_name(f"{folder.name}.shards").glob("*.npy"))


class Lines:
    """Prints a line now and then."""

    def __init__(self) -> None:
        self.last = 0.0
        self.started = time.monotonic()

    def __call__(self, progress: "Progress") -> None:
        """Prints how far the data set is."""
        if time.monotonic() - self.last >= LINE_EVERY_S or progress.assembling:
            self.last = time.monotonic()
            rate = progress.here / (time.monotonic() - self.started)
            what = "putting the files together" if progress.assembling else f"{rate:.0f} images/s in this job"
            print(f"{progress.images:,} of {progress.total:,} images, {what}", file=sys.stdout, flush=True)
