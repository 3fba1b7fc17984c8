"""A table: seconds to check and to identify a folder of images. `python -m benchmarks.folder_identity [images] [classes]`

The tree is made of hard links to one small image a class in a temporary folder (TMPDIR), and listed once before, so the system's cache is warm. Half
of the classes have their images in sub-folders. Of each measurement, the best of three is printed, with the seconds of 1.3 million images.
"""

import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from jobs.data.folders import imagefolder_identity, imagefolder_look, imagefolder_problems, read_imagefolder
from jobs.experiment.specs import DataSpec
from models.closed_pipe import ends_with_its_reader

IMAGENET = 1_300_000  # images


def make_tree(root: Path, images: int, classes: int) -> None:
    """root/train with `images` files, root/val with one file for each class."""
    for number in range(classes):
        folder = root / "train" / f"n{number:08d}" / ("more" if number % 2 else "")
        folder.mkdir(parents=True)
        test = root / "val" / f"n{number:08d}"
        test.mkdir(parents=True)
        Image.new("RGB", (64, 48)).save(test / "0.JPEG")
        for sample in range(images // classes):
            os.link(test / "0.JPEG", folder / f"n{number:08d}_{sample}.JPEG")


def best_of_three(function: Callable[[], Any]) -> tuple[float, float]:
    """Wall and CPU seconds of the fastest of three calls."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter(), time.process_time()
        function()
        seconds.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return min(seconds)


@ends_with_its_reader
def main(images: int = 200_000, classes: int = 1000) -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory() as folder:
        make_tree(Path(folder), images, classes)
        data = DataSpec(source="imagefolder", path=folder)
        assert imagefolder_problems(data) == []
        rows = {
            "check of a job (names)": lambda: imagefolder_problems(data),
            "check of a launch (names, sizes)": lambda: imagefolder_look(data),
            "identity (names, sizes, times)": lambda: imagefolder_identity(data, False),
            "list for reading": lambda: read_imagefolder(data, 224),
        }
        print(f"{platform.node()}: {platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, {images:,} images")
        print(f"{'':34}{'wall s':>10}{'CPU s':>10}{'for 1.3 million, wall s':>26}{'CPU s':>10}")
        for name, function in rows.items():
            wall, cpu = best_of_three(function)
            print(f"{name:34}{wall:10.2f}{cpu:10.2f}{wall * IMAGENET / images:26.1f}{cpu * IMAGENET / images:10.1f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
