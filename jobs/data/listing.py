"""The images below the class folders of a folder, and what is wrong there.

Names that begin with a dot are left out at every level: they belong to the system or to an editor. Links are followed. A folder is listed by
`os.scandir`, which asks for the status of links alone.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

IMAGE_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
SUFFIXES: Final = frozenset(IMAGE_SUFFIXES)  # of the same, for the loop over a million files
FAULTS: Final = {
    "links that lead nowhere": "mend or remove them",
    "links that lead back to a folder above them": "remove them",
    "names of images that are no regular files": "remove them",
    "files and folders that cannot be read": "make them readable, or remove them",
    "images of 0 bytes": "copy them again, or remove them",
}
NOWHERE, BACK, NO_FILE, UNREADABLE, EMPTY = FAULTS


class Listing:
    """Lists the images below the class folders of `root`, and collects what is wrong there."""

    def __init__(self, root: Path) -> None:
        self.root = os.fspath(root)
        self.faults: defaultdict[str, list[str]] = defaultdict(list)  # by FAULTS: paths
        self.skipped: Counter[str] = Counter()  # by ending: files that are not read
        self.loose = 0  # images that lie in no class folder
        self.classes: list[str] = []
        self._above: frozenset[tuple[int, int]] = frozenset()
        for entry in self._entries(self.root):
            if os.path.isdir(entry.path):
                self.classes.append(entry.name)
            elif not os.path.exists(entry.path):
                self.faults[NOWHERE].append(entry.path)
            elif ending(entry.name) in SUFFIXES:
                self.loose += 1
        if os.path.isdir(self.root):
            self._above = frozenset({folder_id(self.root)})

    def images(self, name: str) -> Iterator[os.DirEntry[str]]:
        """The images of a class, in the order of their relative paths. None where it has no folder here."""
        folder = os.path.join(self.root, name)
        return self._images(folder, self._above) if os.path.isdir(folder) else iter(())

    def _images(self, folder: str, above: frozenset[tuple[int, int]]) -> Iterator[os.DirEntry[str]]:
        """The images below a folder. `above`: the folders that it lies in, by which a link back to them is noticed."""
        try:
            own = folder_id(folder)
        except OSError as error:
            self.faults[UNREADABLE].append(f"{folder} ({error.strerror})")
            return
        if own in above:
            self.faults[BACK].append(folder)
            return
        for entry in self._entries(folder):
            kind = self._kind(entry)
            if kind == "folder":
                yield from self._images(entry.path, above | {own})
            elif kind == "image":
                yield entry

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        """What a folder holds, by name, without hidden names."""
        try:
            with os.scandir(folder) as entries:
                return sorted((entry for entry in entries if entry.name[0] != "."), key=lambda entry: entry.name)
        except OSError as error:
            self.faults[UNREADABLE].append(f"{folder} ({error.strerror})")
            return []

    def _kind(self, entry: os.DirEntry[str]) -> str:
        """'image', 'folder', or 'other', which is counted."""
        is_image = ending(entry.name) in SUFFIXES
        try:
            if is_image and entry.is_file():
                return "image"
            if entry.is_dir():
                return "folder"
            fault = NOWHERE if entry.is_symlink() and not os.path.exists(entry.path) else NO_FILE
        except OSError:  # a link to itself
            fault = NOWHERE
        if is_image or fault == NOWHERE:
            self.faults[fault].append(entry.path)
        else:
            self.skipped[ending(entry.name) or "without an ending"] += 1
        return "other"


def ending(name: str) -> str:
    """The ending of a file's name in lower case, with its dot."""
    return os.path.splitext(name)[1].lower()


def folder_id(folder: str) -> tuple[int, int]:
    """The numbers that a folder has on this machine, by whichever path it is reached."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino
