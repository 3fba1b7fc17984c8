"""The content of pretrained files: its digest is part of a cell's id, whatever the file's name."""

from contextlib import suppress
from functools import cache
from pathlib import Path

from jobs.experiment.digests import ALWAYS_HASHED_BYTES, remember_sha256, remembered_sha256
from jobs.experiment.files import sha256_of
from jobs.experiment.specs import Distillation, ModelSpec


class PretrainedError(ValueError):
    """A pretrained file is not the file that the launch read; the message says what to do."""


def pretrained_sha256(path: Path, memory: Path | None = None, *, remember: bool = False) -> str | None:
    """The digest of a file's content, computed once per process as long as size and time of change stay; None if it cannot be read.

    memory: the cache folder, which may have the digest of a large file. remember: write it there, if it can be written.
    """
    try:
        status = path.stat()
        return _digest(path, status.st_size, status.st_mtime_ns, memory, remember) if path.is_file() else None
    except (OSError, ValueError):  # a path that cannot be one
        return None


@cache
def _digest(path: Path, size: int, mtime_ns: int, memory: Path | None, remember: bool) -> str:
    if memory is None or size <= ALWAYS_HASHED_BYTES:
        return sha256_of(path)
    if known := remembered_sha256(path, size, mtime_ns, memory):
        return known
    digest = sha256_of(path)
    if remember:
        with suppress(OSError):
            remember_sha256(path, size, mtime_ns, memory, digest)
    return digest


def check_teacher(distill: Distillation, memory: Path | None = None) -> None:
    """PretrainedError if the teacher's file is gone, or holds other weights than when its cell was planned. `memory`: as in `check_pretrained`."""
    if distill.file is None or distill.teacher_sha256 is None:
        return
    if pretrained_sha256(Path(distill.file), memory, remember=True) == distill.teacher_sha256:
        return
    remedy = f"bring back the file with sha256 {distill.teacher_sha256}, or launch again with another"
    raise PretrainedError(f"distill.teacher: {distill.file} is not the file that the launch read: {remedy}")


def check_pretrained(model: ModelSpec, memory: Path | None = None) -> None:
    """PretrainedError if the model's file is gone, or holds other weights than when its cell was planned. Models of older records pass unchecked.

    memory: the cache folder, which remembers the digests of large files for the next job and the next launch.
    """
    path = model.options.get("pretrained")
    if path is None or model.pretrained_sha256 is None:
        return
    if (digest := pretrained_sha256(Path(path), memory, remember=True)) == model.pretrained_sha256:
        return
    state = f"there is no file {path} that can be read" if digest is None else f"{path} has changed since the launch"
    raise PretrainedError(f"pretrained: {state}: bring back the file with sha256 {model.pretrained_sha256}, or launch again with another")
