"""A test folder without class folders, as ImageNet's val is when it is unpacked, and the file that tells the class of each image.

Each line of that file begins with an image's name, with or without its ending, and the name of a class folder of the training images, with a comma,
spaces or a tab between them. What follows is not read, nor is a first line that names no image: so Kaggle's LOC_val_solution.csv is read as it is.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from jobs.data.beton import DataError
from jobs.data.faults import listed
from jobs.data.listing import Listing

SEPARATORS = re.compile(r"[,;\s]+")


def remedy(images: int) -> str:
    """What to do about a folder that holds so many images and no class folders."""
    return (
        f"{images:,} images lie in it and no class folders, as in ImageNet's val when it is unpacked: set data.test_labels to a file that tells the "
        "class of each (such as LOC_val_solution.csv), or sort them into class folders (valprep.sh of soumith/imagenetloader.torch does)"
    )


def read_labels(file: Path) -> dict[str, str]:
    """Name of an image without its ending -> class. DataError where the file cannot be read, or where a line has no class."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: {error}: set data.test_labels to a text file with an image and its class on each line") from error
    classes = {}
    for number, line in enumerate(lines, 1):
        image, *rest = SEPARATORS.split(line.strip())
        if image and not rest:
            raise DataError(f"{file}, line {number}: {image} has no class: each line must begin with the name of an image and that of its class")
        if image:
            classes[stem(image)] = rest[0]
    return classes


def stem(name: str) -> str:
    """The name of an image without its folder and its ending."""
    return os.path.splitext(os.path.basename(name))[0]


class FlatListing(Listing):
    """The images that lie in `root` itself, by the classes that a file tells. DataError for images whose class is not told, or not in `classes`."""

    def __init__(self, root: Path, classes: Sequence[str], file: Path) -> None:
        super().__init__(root)
        labels, known = read_labels(file), set(classes)
        self._by_class: dict[str, list[os.DirEntry[str]]] = {}
        self.loose, untold = 0, []
        for entry in self._entries(self.root):
            if self._kind(entry) == "image":
                name = labels.get(stem(entry.name))
                self._by_class.setdefault(name or "", []).append(entry)
                if name not in known:
                    untold.append(entry.name)
        if untold:
            where = f"for {len(untold)} images of {self.root}: {listed(untold)}"
            raise DataError(f"{file}: tells no class of the training images {where}: complete it, with the names of the class folders")
        self.classes = sorted(self._by_class)

    def images(self, name: str) -> Iterator[os.DirEntry[str]]:
        """The images of a class, in the order of their names."""
        return iter(self._by_class.get(name, ()))
