"""What a source of images is, and what its reader gives."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.experiment.specs import DataSpec


@dataclass(frozen=True, kw_only=True)
class Part:
    """Training or test images of a source."""

    labels: NDArray[np.integer]  # (n,)
    image: Callable[[int], NDArray[np.uint8]]  # from a position to (H, W, 3) RGB
    name: Callable[[int], str]  # from a position to the file, or to words that name the image
    content: Callable[[int], bytes] | None = None  # from a position to the bytes of its file; None: there are no image files


@dataclass(frozen=True, kw_only=True)
class Content:
    """The images of a source."""

    classes: int
    names: tuple[str, ...] | None = None  # of the classes, by their numbers; None: they have none
    train: Part
    test: Part


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a launch can know of a source without reading its images."""

    problems: list[str]
    notes: list[str] = field(default_factory=list)  # what a user should know although it stops nothing
    labels: NDArray[np.integer] | None = None  # of all training images, (n,); None: not counted


@dataclass(frozen=True, kw_only=True)
class Reader:
    """How a source is checked, identified and read."""

    problems: Callable[[DataSpec], list[str]]
    identity: Callable[[DataSpec, bool], Any]  # plain values that change when the content does; True: read every file, do not trust its time
    read: Callable[[DataSpec, int], Content]  # the number is the width and height, in pixels, of the network's input
    files: bool = False  # True: images are files, and JPEGs among them may keep their bytes
    look: Callable[[DataSpec], Look] | None = None  # once, at a launch, where more can be known than `problems` tells
