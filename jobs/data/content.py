"""What a source of images is, and what its reader gives."""

from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True, kw_only=True)
class Content:
    """The images of a source."""

    classes: int
    train: Part
    test: Part


@dataclass(frozen=True, kw_only=True)
class Reader:
    """How a source is checked, identified and read."""

    problems: Callable[[DataSpec], list[str]]
    identity: Callable[[DataSpec, bool], Any]  # plain values that change when the content does; True: read every file, do not trust its time
    read: Callable[[DataSpec, int], Content]  # the number is the width and height, in pixels, of the network's input
    notes: Callable[[DataSpec], list[str]] = lambda data: []  # what a user should know although it stops nothing
