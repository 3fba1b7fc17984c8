"""Headers of image files. A launch reads them, those of a large folder in part, so that unusable images are known before the first job.

A header tells that a file is no image, how large the image is, and of which colours. Damage behind it shows when the .beton file is written.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from jobs.data.faults import Faults, UnusableImage
from jobs.data.images import size_in_header
from jobs.data.stored_size import fits, fitted_size, stored_as_jpg, too_large
from jobs.experiment.specs import DataSpec, image_size

HEADERS: Final = 2000  # that are read of a folder: a second, or a few where the files are far away
THREADS: Final = 16  # they mostly wait for the disk

SizedFile = tuple[int, str]  # bytes and path


def header_problems(files: Sequence[SizedFile], data: DataSpec) -> list[str]:
    """Images that cannot be used, a message for each kind of fault, which names at most ten of them."""
    chosen, faults = to_read(files), Faults()
    with ThreadPoolExecutor(THREADS) as pool:
        for error in pool.map(lambda path: header_fault(path, data), chosen):
            if error is not None:
                faults.add(error)
    some = f" (the headers of {len(chosen):,} of {len(files):,} images were read)" if len(chosen) < len(files) else ""
    return [f"{problem}{some}" for problem in faults.by_kind()]


def to_read(files: Sequence[SizedFile]) -> list[str]:
    """The paths of all files, or of HEADERS of them: a quarter the smallest, a quarter the largest, and from the rest one in so many."""
    if len(files) <= HEADERS:
        return [path for _, path in files]
    by_size, ends = sorted(files), HEADERS // 4
    middle = by_size[ends:-ends]
    spread = [middle[number * len(middle) // (HEADERS - 2 * ends)] for number in range(HEADERS - 2 * ends)]
    return [path for _, path in (*by_size[:ends], *spread, *by_size[-ends:])]


def header_fault(path: str, data: DataSpec) -> UnusableImage | None:
    """Why the image in a file cannot be used, as far as its header tells."""
    try:
        rows, columns = size_in_header(path)
    except UnusableImage as error:
        return error
    height, width = fitted_size(rows, columns, image_size(data), data.max_resolution)
    return None if fits(height, width, stored_as_jpg(data, height, width)) else too_large(path, rows, columns, data)
