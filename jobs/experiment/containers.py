"""The rules of a container: what its image and its mounts may be, and what of a profile has no effect inside.

Both runtimes take a mount as SOURCE:TARGET, with :ro behind it for reading alone, and both separate mounts by commas.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

from jobs.experiment.specs import ClusterSpec, ContainerSpec

RECORDED: Final = "VSSM_CONTAINER"  # the variable from which a job's records have the image
LINKS: Final = "VSSM_LINKS"  # the variable that tells a job, as JSON, where the links lead that a container mounts as folders
IMAGE_FILES: Final = (".sif", ".sqsh", ".squashfs", ".img")
IMPORTED: Final = ("docker://", "dockerd://")  # the addresses that enroot imports; an image's name alone is the first
MODES: Final = ("ro", "rw")
# Lines of `setup` that choose a Python; they run outside of the container.
CHOOSES_PYTHON: Final = re.compile(
    r"(?:^|[;&|])\s*(?:(?:module\s+(?:load|add)|ml)\s[^;&|]*(?:python|conda|mamba)|(?:conda|mamba)\s+activate|(?:source|\.)\s+\S*activate\b)",
    re.IGNORECASE,
)
CHOOSE_PYTHON: Final = ("PATH", "PYTHONHOME", "VIRTUAL_ENV")  # variables that would lead the image's Python astray


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A file or folder of a node, and where tasks see it."""

    source: str
    target: str
    read_only: bool = False

    def __str__(self) -> str:
        """As both runtimes take it."""
        return f"{self.source}:{self.target}{':ro' if self.read_only else ''}"

    def shows(self, other: "Mount") -> bool:
        """True if what `other` mounts is there through this mount."""
        if not PurePath(other.target).is_relative_to(self.target) or (self.read_only and not other.read_only):
            return False
        return os.path.normpath(PurePath(self.source, PurePath(other.target).relative_to(self.target))) == other.source


def same_path(path: object, *, read_only: bool = False) -> Mount:
    """The mount of an absolute path at the same path."""
    text = os.path.normpath(str(path))
    return Mount(source=text, target=text, read_only=read_only)


def parsed_mount(text: str) -> Mount:
    """The mount that a profile writes as SOURCE, SOURCE:TARGET or SOURCE:TARGET:ro. ValueError says what is wrong with it."""
    source, *others = text.split(":")
    target, mode = [*others, *([source, "rw"][len(others) :])][:2] if len(others) <= 2 else ("", "")
    if not source or not target or mode not in MODES:
        raise ValueError(f"{text}: expected SOURCE, SOURCE:TARGET or SOURCE:TARGET:ro")
    for path in (source, target):
        if problem := unmountable(path):
            raise ValueError(f"{text}: {problem}")
    if os.path.normpath(target) == "/":
        raise ValueError(f"{text}: the image itself is at /: name another target")
    return Mount(source=os.path.normpath(source), target=os.path.normpath(target), read_only=mode == "ro")


def links_of(mounts: Iterable[Mount]) -> dict[str, str]:
    """Where the mounted paths lead on this machine that are links, or lie behind some. Inside, they are folders and files themselves."""
    real = {mount.target: os.path.realpath(mount.source) for mount in mounts if mount.source == mount.target}
    return {path: leads_to for path, leads_to in real.items() if leads_to != path}


def real_path(path: str | PurePath) -> str:
    """A path without links, the same inside of a container as outside."""
    here = os.path.realpath(path)
    links: dict[str, str] = json.loads(os.environ.get(LINKS) or "{}")
    mounted = max((link for link in links if PurePath(here).is_relative_to(link)), key=len, default=None)
    return here if mounted is None else os.path.normpath(PurePath(links[mounted], PurePath(here).relative_to(mounted)))


def unmountable(path: str) -> str | None:
    """Why a path cannot be mounted; None if it can."""
    if not path.startswith("/"):
        return f"{path} is not absolute: write the whole path, from /"
    if any(character in path for character in ",:\n\0"):
        return f"{path!r} has a comma, colon or line break, by which runtimes separate mounts: use a path without"
    return None


def is_file(container: ContainerSpec) -> bool:
    """True if the image is named by a path, not by a name that enroot imports."""
    return container.runtime == "apptainer" or container.image.startswith(("/", ".", "~")) or container.image.endswith(IMAGE_FILES)


def image_problem(container: ContainerSpec) -> str | None:
    """Why an image cannot be one of its runtime's, whatever is on the disk; None if it can."""
    image = container.image
    if not image or re.search(r"\s", image) or "," in image:
        return f"{image!r} is no image: it is empty, or has a blank or a comma"
    address = re.match(r"[\w+.-]+://", image)
    if container.runtime == "apptainer" and address:
        return f"{image}: every task would fetch and convert it: build a file once (apptainer build vssm.sif {image}) and give its path"
    if address and address[0] not in IMPORTED:
        return f"{image}: enroot imports {' and '.join(IMPORTED)} alone; give an image's name, or the path of a .sqsh file"
    if is_file(container) and not image.startswith("/"):
        return f"{image} is not absolute: give the whole path of the image's file, from /"
    if container.runtime == "pyxis" and image.endswith(".sif"):
        return f"{image} is a file of apptainer's: pyxis takes a .sqsh file (enroot import) or an image's name"
    return None


def container_conflicts(cluster: ClusterSpec) -> Iterator[tuple[str, str]]:
    """(field, rule) for what is wrong with a cluster's container, or has no effect beside it."""
    container = cluster.container
    if container is None:
        return
    if cluster.kind != "slurm":
        yield "container", f"the tasks of SLURM jobs alone run in it, and this is kind: {cluster.kind}"
    if problem := image_problem(container):
        yield "container", f"image: {problem}"
    yield from (("container", f"mounts: {problem}") for problem in mount_problems(container.mounts))
    for line in cluster.setup:
        if CHOOSES_PYTHON.search(line):
            yield "setup", f"{line!r} runs outside of the container, where no Python of ours runs; the image's own does: leave it out"
    for name in sorted({*cluster.environment} & {*CHOOSE_PYTHON}):
        yield "environment", f"{name} would hide the image's own Python: leave it out"
    if any(str(option).startswith(("--container", "--no-container")) for option in cluster.slurm.get("srun_args", ())):
        yield "container", "srun_args has options of containers too: give one of the two"
    if container.runtime == "pyxis" and cluster.slurm.get("use_srun") is False:
        yield "container", "pyxis is a part of srun: leave use_srun out"
    if cluster.cache_local is not None and not covered(cluster.cache_local, container.mounts):
        yield (
            "cache_local",
            f"{cluster.cache_local} is not in the container: name a folder in one of container.mounts, and mount the node's disk there",
        )


def mount_problems(texts: Iterable[str]) -> Iterator[str]:
    """Mounts that are none, and two at the same target."""
    targets: dict[str, str] = {}
    for text in texts:
        try:
            mount = parsed_mount(text)
        except ValueError as error:
            yield str(error)
            continue
        if mount.target in targets:
            yield f"{text}: {targets[mount.target]} is mounted there too"
        targets[mount.target] = text


def covered(path: str, texts: Iterable[str]) -> bool:
    """True if an absolute path is in a mounted folder that can be written. Texts that are no mounts do not count."""
    for text in texts:
        try:
            mount = parsed_mount(text)
        except ValueError:
            continue
        if not mount.read_only and PurePath(os.path.normpath(path)).is_relative_to(mount.target):
            return True
    return False


def arranged(own: Iterable[Mount], needed: Iterable[Mount]) -> tuple[Mount, ...]:
    """All mounts, a folder before what is mounted in it. `needed`, those of the run, are left out where another mount shows the same already.

    ValueError where a mount of the profile, `own`, hides one that the run needs.
    """
    kept = list(own)
    for mount in sorted(dict.fromkeys(needed), key=lambda each: (len(PurePath(each.target).parts), each.read_only)):
        above = [other for other in kept if PurePath(mount.target).is_relative_to(other.target)]
        nearest = max(above, key=lambda other: len(PurePath(other.target).parts), default=None)
        if nearest is not None and nearest.shows(mount):
            continue
        if nearest is not None and nearest.target == mount.target:
            if nearest.source == mount.source:
                raise ValueError(f"{nearest}: jobs write there: leave :ro out")
            raise ValueError(f"{nearest}: the run needs {mount.source} there: name another target")
        kept.append(mount)
    return tuple(sorted(kept, key=lambda each: len(PurePath(each.target).parts)))
