"""Sources of images. Each has a reader, and all readers give the same kind of content. Nothing is downloaded.

A reader is three functions. Two are cheap enough for a login node: the errors in the settings, and the identity of the content. The third reads it.
"""

import hashlib
import json
import pickle
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from jobs.data.augment import held_out, uniform
from jobs.data.beton import DataError
from jobs.data.content import Content, Part, Reader
from jobs.data.folders import imagefolder_identity, imagefolder_look, imagefolder_problems, read_imagefolder
from jobs.data.huggingface import huggingface_identity, huggingface_problems, look_at_huggingface, read_huggingface
from jobs.data.plugin_sources import guarded
from jobs.data.webdataset import read_webdataset, webdataset_identity, webdataset_problems
from jobs.experiment.files import sha256_of
from jobs.experiment.identity import plain
from jobs.experiment.plugins import plugin_identity
from jobs.experiment.sources import SOURCES
from jobs.experiment.specs import DataSpec

DIGITS_TEST_FRACTION: Final = 0.2
DIGITS_SPLIT_SEED: Final = 0  # of the fixed train/test split: no setting changes it
SYNTHETIC_SEED: Final = 0
CIFAR_URL: Final = "https://www.cs.toronto.edu/~kriz/cifar.html"


def array_part(images: NDArray[np.uint8], labels: NDArray[np.integer]) -> Part:
    """The images (n, H, W, 3) and labels (n,) of arrays."""
    return Part(labels=labels.astype(np.int64), image=lambda sample: images[sample], name="image {}".format)


# digits: 1,797 handwritten digits of 8 x 8 pixels in 17 grey levels, shipped within scikit-learn


def digits_problems(data: DataSpec) -> list[str]:
    return [] if find_spec("sklearn") else ["data.source: digits comes with scikit-learn, which is not installed: pip install scikit-learn"]


def digits_identity(data: DataSpec, by_content: bool) -> None:
    """Nothing: the images never change."""
    return None


def read_digits(data: DataSpec, img_size: int) -> Content:
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    images = np.repeat(grey[..., None], 3, axis=3)
    test = held_out(digits.target, DIGITS_TEST_FRACTION, DIGITS_SPLIT_SEED)
    return Content(classes=10, train=array_part(images[~test], digits.target[~test]), test=array_part(images[test], digits.target[test]))


# cifar10, cifar100: the official "python version": pickles, read without running any code that they name


@dataclass(frozen=True, kw_only=True)
class Cifar:
    classes: int
    folder: str
    train: tuple[str, ...]
    test: str
    labels: bytes


CIFARS: Final = {
    "cifar10": Cifar(
        classes=10, folder="cifar-10-batches-py", train=tuple(f"data_batch_{n}" for n in range(1, 6)), test="test_batch", labels=b"labels"
    ),
    "cifar100": Cifar(classes=100, folder="cifar-100-python", train=("train",), test="test", labels=b"fine_labels"),
}


class ArrayUnpickler(pickle.Unpickler):
    """Admits numpy arrays and plain containers. A pickle that names anything else is refused before it runs."""

    ADMITTED: Final = {("_reconstruct", "multiarray"), ("ndarray", "numpy"), ("dtype", "numpy"), ("encode", "_codecs")}

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] not in ("numpy", "_codecs") or (name, module.split(".")[-1]) not in self.ADMITTED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no array")
        return super().find_class(module, name)


def cifar_files(data: DataSpec) -> dict[str, Path]:
    """File name -> path. data.path is the unpacked folder or its parent."""
    cifar, folder = CIFARS[data.source], Path(data.path or "").expanduser()
    inner = folder / cifar.folder
    return {name: (inner if inner.is_dir() else folder) / name for name in (*cifar.train, cifar.test)}


def cifar_problems(data: DataSpec) -> list[str]:
    remedy = f"unpack the python version from {CIFAR_URL} and set data.path to its folder {CIFARS[data.source].folder}"
    if data.path is None:
        return [f"data.path is not set: {remedy}"]
    missing = [path for path in cifar_files(data).values() if not path.is_file()]
    if not missing:
        empty = [path.name for path in cifar_files(data).values() if not path.stat().st_size]
        return [f"{data.path}: files of 0 bytes: {', '.join(empty)}: {remedy}"] if empty else []
    if not missing[0].parent.is_dir():
        return [f"{missing[0].parent}: no such folder: {remedy}"]
    return [f"{missing[0].parent} lacks {', '.join(path.name for path in missing)}: {remedy}"]


def cifar_identity(data: DataSpec, by_content: bool) -> list[tuple[str, int, int]] | list[tuple[str, str]]:
    """Name, size and time of change of each file, or its name and a digest of its content."""
    if by_content:
        return [(path.name, sha256_of(path)) for path in cifar_files(data).values()]
    return [(path.name, status.st_size, status.st_mtime_ns) for path in cifar_files(data).values() if (status := path.stat())]


def read_cifar(data: DataSpec, img_size: int) -> Content:
    cifar, files = CIFARS[data.source], cifar_files(data)
    batches = {name: read_cifar_batch(path, cifar) for name, path in files.items()}
    images, labels = (np.concatenate([batches[name][part] for name in cifar.train]) for part in (0, 1))
    return Content(classes=cifar.classes, train=array_part(images, labels), test=array_part(*batches[cifar.test]))


def read_cifar_batch(path: Path, cifar: Cifar) -> tuple[NDArray[np.uint8], NDArray[np.integer]]:
    """Images (n, 32, 32, 3) and labels (n,) of one file. DataError where it is damaged."""
    with path.open("rb") as file:
        batch = loaded_pickle(path, file)
    pixels = batch.get(b"data") if isinstance(batch, dict) else None
    labels = batch.get(cifar.labels) if isinstance(batch, dict) else None
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (3072,) or not isinstance(labels, list):
        raise DataError(
            f"{path}: not a batch of {cifar.folder}, which needs b'data' (n, 3072) uint8 and a list {cifar.labels!r}: unpack {CIFAR_URL} again"
        )
    if len(labels) != len(pixels) or not all(isinstance(label, int) and 0 <= label < cifar.classes for label in labels):
        raise DataError(
            f"{path}: damaged: {len(labels)} labels for {len(pixels)} images, or a label outside of 0..{cifar.classes - 1}: unpack {CIFAR_URL} again"
        )
    return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), np.array(labels)


def loaded_pickle(path: Path, file: BinaryIO) -> Any:
    """The content of a pickle of arrays. DataError where it is damaged or names anything else."""
    try:
        return ArrayUnpickler(file, encoding="bytes").load()
    except Exception as error:  # a damaged pickle raises nearly anything
        raise DataError(f"{path}: not an official CIFAR pickle ({error}): unpack {CIFAR_URL} again") from error


# synthetic: coloured gratings under noise, of any size. Orientation, frequency and colour tell the class.


def synthetic_problems(data: DataSpec) -> list[str]:
    return []  # its settings have rules in jobs.experiment.limits, and it has no files


def synthetic_identity(data: DataSpec, by_content: bool) -> list[int]:
    return [data.samples, data.classes]


def read_synthetic(data: DataSpec, img_size: int) -> Content:
    def part(first: int, count: int) -> Part:
        labels = np.arange(count) % data.classes
        return Part(labels=labels, image=lambda sample: grating(first + sample, int(labels[sample]), data.classes, img_size), name="image {}".format)

    return Content(classes=data.classes, train=part(0, data.samples), test=part(data.samples, data.samples // 4))


def grating(sample: int, label: int, classes: int, img_size: int) -> NDArray[np.uint8]:
    """A wave, (img_size, img_size, 3). Direction, length and colour depend on the class, phase and noise on the sample."""
    turn = label / classes
    y, x = np.mgrid[:img_size, :img_size] / img_size
    phase = uniform(SYNTHETIC_SEED, 0, np.array([sample]), 0)[0]
    cycles = 2 + 3 * (label % 3)
    wave = np.sin(2 * np.pi * (cycles * (x * np.cos(np.pi * turn) + y * np.sin(np.pi * turn)) + phase))
    colour = 0.5 + 0.5 * np.cos(2 * np.pi * (turn + np.arange(3) / 3))
    noise = uniform(SYNTHETIC_SEED, sample + 1, np.arange(img_size * img_size * 3), 0).reshape(img_size, img_size, 3) - 0.5
    pixels: NDArray[np.uint8] = np.rint(255 * np.clip(0.5 + 0.25 * wave[..., None] * colour + 0.3 * noise, 0, 1)).astype(np.uint8)
    return pixels


# all of them


READERS: Final = {
    "digits": Reader(problems=digits_problems, identity=digits_identity, read=read_digits),
    "cifar10": Reader(problems=cifar_problems, identity=cifar_identity, read=read_cifar),
    "cifar100": Reader(problems=cifar_problems, identity=cifar_identity, read=read_cifar),
    "imagefolder": Reader(problems=imagefolder_problems, identity=imagefolder_identity, read=read_imagefolder, files=True, look=imagefolder_look),
    "huggingface": Reader(problems=huggingface_problems, identity=huggingface_identity, read=read_huggingface, files=True, look=look_at_huggingface),
    "webdataset": Reader(problems=webdataset_problems, identity=webdataset_identity, read=read_webdataset, files=True),
    "synthetic": Reader(problems=synthetic_problems, identity=synthetic_identity, read=read_synthetic),
}


def reader_of(source: str) -> Reader:
    """The reader of a source, ours or a plug-in's."""
    return READERS[source] if source in READERS else guarded(source, SOURCES[source].reader)


def content_key(data: DataSpec, img_size: int, version: int, by_content: bool = False) -> str:
    """16 hex digits that name the written files: a hash of the source, the settings of writing, and the `version` of this code.

    by_content: the files of the source are read to identify them; otherwise they count as unchanged while name, size and time of change stay.
    """
    reader = reader_of(data.source)
    parts = [version, data.source, reader.identity(data, by_content), img_size, data.write_mode, data.max_resolution]
    if data.write_mode == "jpg" and reader.files:
        parts.append("JPEGs keep their bytes")  # since version 0.3
    parts.extend(plugin_identity("data", data.source).values())
    if data.options is not None:
        parts.append(plain(data.options))
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
