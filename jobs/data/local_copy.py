"""The files of a data set on a node's own disk, copied once for all processes of the node, and for later jobs there."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from jobs.cluster.claims import claimed
from jobs.data.beton import DataError, sha256_file
from jobs.data.prepare import Dataset, verified_sha256
from jobs.data.row_starts import starts_file
from jobs.data.space import shown
from jobs.experiment.files import this_host, with_variables, write_json, write_text, written_aside

CHUNK: Final = 8 << 20  # bytes


def local_cache(text: str) -> Path:
    """The folder that `cluster.cache_local` names on this node. DataError for a variable that is not set here."""
    try:
        return Path(with_variables(text)).expanduser().absolute()
    except LookupError as error:
        raise DataError(f"cluster.cache_local: {text}: {error} on {this_host()}: name a variable that every node sets, or a folder") from error


def copied(dataset: Dataset, local: Path) -> Dataset:
    """`dataset` with its files in `local`. What is there is used if it has the size and the digest of the original, else it is copied again.

    One process of the node copies; those that ask meanwhile wait. Raises DataError where the disk is too small, or where the copy is another file.
    """
    folder = local / f"{dataset.train.parent.name}-{dataset.sha256[:16]}"
    copies = {dataset.train: folder / "train.beton", dataset.test: folder / "test.beton"}  # ready files of two folders may have one name
    try:
        with claimed(local / f"{folder.name}.lock"):
            wanted = {path: target for path, target in copies.items() if not is_copied(path, target, dataset.sha256, local)}
            check_room(wanted, folder)
            for path, target in wanted.items():
                copy_starts(path, target)
                copy(path, target, dataset.sha256)
    except OSError as error:
        where = error.filename or folder
        remedy = "free space there, or set cluster.cache_local to a folder of the node"
        raise DataError(f"{where} on {this_host()}: {error.strerror}: {remedy}") from error
    return replace(dataset, train=copies[dataset.train], test=copies[dataset.test])


def is_copied(original: Path, copy: Path, dataset_sha256: str, local: Path) -> bool:
    """True if `copy` is whole: the note beside it says of which file it is, and its size and digest are that file's."""
    try:
        note = json.loads(note_path(copy).read_bytes())
        if note["dataset"] != dataset_sha256 or copy.stat().st_size != original.stat().st_size:
            return False
        return verified_sha256(copy, local, False) == str(note["sha256"])
    except (FileNotFoundError, ValueError, KeyError, DataError):
        return False


def note_path(copy: Path) -> Path:
    """Where it is noted of which data set a copy is."""
    return copy.with_name(f"{copy.name}.copy.json")


def torn_path(target: Path) -> Path:
    """Where a copy is while it is made."""
    return target.with_name(f".{target.name}.torn")


def check_room(files: Mapping[Path, Path], folder: Path) -> None:
    """DataError if the disk of `folder` has no room for the copies, by their originals. What a killed copy left there counts as free."""
    needed = sum(file.stat().st_size for path in files for file in (path, starts_file(path)) if file.exists())
    left = sum(there.stat().st_size for target in files.values() for there in (torn_path(target), target) if there.exists())
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free + left
    if needed > free:
        raise DataError(
            f"{folder} on {this_host()}: a copy of the data needs {shown(needed)}, and {shown(free)} are free: free space there, or leave out "
            "cluster.cache_local"
        )


def copy_starts(original: Path, target: Path) -> None:
    """Copies the row starts of a file, if it has some. A loader checks them itself."""
    if starts_file(original).exists():
        with written_aside(starts_file(target)) as aside:
            shutil.copyfile(starts_file(original), aside)
    else:
        starts_file(target).unlink(missing_ok=True)


def copy(original: Path, target: Path, dataset_sha256: str) -> None:
    """Copies a file aside, then to `target`. DataError if its content is not what was written."""
    target.unlink(missing_ok=True)
    torn, digest = torn_path(target), hashlib.sha256()
    print(f"copying {original} ({shown(original.stat().st_size)}) to {target.parent} on {this_host()}", flush=True)
    with original.open("rb") as source, torn.open("wb") as file:
        while chunk := source.read(CHUNK):
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    beside = sha256_file(original)
    written = beside.read_text(encoding="ascii").split()[:1] if beside.exists() else [digest.hexdigest()]
    if written != [digest.hexdigest()]:
        torn.unlink()
        raise DataError(f"{original}: its content is not what was written (its sha256 is {digest.hexdigest()}): write or copy it again")
    write_text(sha256_file(target), f"{digest.hexdigest()}  {target.name}\n")
    torn.replace(target)
    write_json(note_path(target), {"dataset": dataset_sha256, "sha256": digest.hexdigest()})
