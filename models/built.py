"""Where the project's built C++ libraries lie: beside their source, or in a container's image, which has its own."""

import os
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Final

IMAGE: Final = "VSSM_BUILT"  # the variable by which an image names the project's folder in it
ROOT: Final = Path(__file__).resolve().parents[1]


def built_file(folder: Path, name: str) -> Path | None:
    """The built library of a folder of the project; None where there is none. An image's own goes before that of the machine that launched."""
    image = os.environ.get(IMAGE)
    folders = [*([Path(image) / folder.resolve().relative_to(ROOT)] if image else []), folder]
    candidates = (folder / f"{name}{suffix}" for folder in folders for suffix in EXTENSION_SUFFIXES)
    return next((path for path in candidates if path.exists()), None)
