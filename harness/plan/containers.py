"""A grid's jobs in a container: what they must see of this machine, at the same paths, and what is wrong with the image and the mounts."""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Final

from jobs.cluster.slurm import SchedulerError
from jobs.experiment.cell import Cell
from jobs.experiment.containers import LINKS, RECORDED, Mount, arranged, is_file, links_of, parsed_mount, same_path, unmountable
from jobs.experiment.pretrained import pretrained_sha256
from jobs.experiment.run_folder import RunFolder
from jobs.experiment.specs import ClusterSpec, ContainerSpec, DataSpec
from jobs.worker.code_copy import surroundings_of

KERNELS: Final = ("TRITON_CACHE_DIR", "triton")  # a variable of Triton's, and the folder of the cache that it names: an image's home keeps nothing


def in_container(cluster: ClusterSpec, run: RunFolder, cells: Iterable[Cell], code: Path) -> ClusterSpec:
    """A cluster whose jobs see their run folder, cache, data and files of weights in its container; as it is where it has none.

    code: the folder of the packages that run. Makes the cache's folder. Raises SchedulerError where something cannot be mounted.
    """
    if cluster.container is None:
        return cluster
    folders = [run.path.absolute(), code.resolve()]
    try:
        return entered(cluster, cluster.container, [*map(same_path, folders), *of_cells(cells)], code)
    except ValueError as error:
        raise SchedulerError(f"cluster.container: {error}") from error


def entered(cluster: ClusterSpec, container: ContainerSpec, needed: Iterable[Mount], code: Path) -> ClusterSpec:
    """A cluster whose container mounts what is needed, its cache among it, and runs the packages in `code`. ValueError where it cannot."""
    cache = Path(cluster.cache).expanduser().absolute()
    cache.mkdir(parents=True, exist_ok=True)
    direct = [*needed, same_path(cache)]
    every = [*direct, *(same_path(os.path.realpath(mount.source), read_only=mount.read_only) for mount in direct)]  # where links lead
    for mount in every:
        if problem := unmountable(mount.target):
            raise ValueError(problem)
    mounts = arranged(map(parsed_mount, container.mounts), every)
    variable, folder = KERNELS
    environment = {
        variable: str(cache / folder),
        **cluster.environment,
        **surroundings_of(code, cluster.environment),  # without this shell's PYTHONPATH, which is for another Python
        RECORDED: described(container, cache),
        **({LINKS: json.dumps(links)} if (links := links_of(mounts)) else {}),
    }
    return replace(cluster, cache=str(cache), container=replace(container, mounts=tuple(map(str, mounts))), environment=environment)


def described(container: ContainerSpec, cache: Path) -> str:
    """A container as records have it: runtime, image, and the digest of its file. `cache` remembers the digest."""
    digest = pretrained_sha256(Path(container.image), cache, remember=True) if is_file(container) else None
    return f"{container.runtime} {container.image}{f' sha256:{digest}' if digest else ''}"


def of_cells(cells: Iterable[Cell]) -> Iterator[Mount]:
    """The files and folders that the jobs of cells read. What is not there is left out: other checks name it."""
    cells = list(cells)
    paths = [path for data in {id(cell.data): cell.data for cell in cells}.values() for path in paths_of(data)]
    weights = (cell.model.options.get("pretrained") for cell in cells)
    teachers = (cell.recipe.distill.file for cell in cells if cell.recipe.distill)
    paths += [path for path in (*weights, *teachers) if path]
    yield from (same_path(path, read_only=True) for path in dict.fromkeys(paths) if os.path.isabs(path) and os.path.exists(path))


def paths_of(data: DataSpec) -> list[str]:
    """The paths of a data set, of a pattern the folder around it; of a plug-in's options those that are paths of something."""
    given = [path for path in (data.path, data.test_path, data.test_labels) if path]
    options = [str(value) for value in vars(data.options).values() if isinstance(value, str | Path)] if hasattr(data.options, "__dict__") else []
    return [fixed_part(os.path.expanduser(path)) for path in (*given, *options)]


def fixed_part(path: str) -> str:
    """A path up to the first part that is a pattern."""
    parts = PurePath(path).parts
    pattern = next((index for index, part in enumerate(parts) if set("*?[{") & set(part)), None)
    return path if pattern is None or os.path.exists(path) else str(PurePath(*parts[:pattern]))


def container_problems(cluster: ClusterSpec, cells: Iterable[Cell] = ()) -> list[str]:
    """An image or a mount that is not there, one sentence each with its key, and mounts that the jobs of cells cannot have."""
    container = cluster.container
    if container is None:
        return []
    problems = [*missing(container)]
    try:
        needed = list(of_cells(cells))
        arranged(map(parsed_mount, container.mounts), needed)
        problems += [f"mounts: {problem}" for mount in needed if (problem := unmountable(mount.target))]
    except ValueError as error:
        problems.append(f"mounts: {error}")
    return [f"cluster.container.{problem}" for problem in problems]


def missing(container: ContainerSpec) -> Iterator[str]:
    """An image's file that cannot be read, and sources of mounts that are not there."""
    if is_file(container) and not os.access(container.image, os.R_OK):
        remedy = "ask its owner for the right to read it" if os.path.exists(container.image) else "build it (slurm/container.def, slurm/Dockerfile)"
        state = "cannot be read" if os.path.exists(container.image) else "is not there"
        yield f"image: {container.image} {state}: {remedy}, or correct its path"
    for text in container.mounts:
        if not os.path.exists(source := parsed_mount(text).source):
            yield f"mounts: {text}: there is no {source} to mount: make it, or correct its path"
