"""The one door to data: check what was asked for, prepare it on disk, load it.

A source is written once to two .beton files; both loaders read those same files, follow the same split, order, boxes and flips
(`jobs.data.augment`), and are normalised here. So `loader` decides only who decodes: FFCV's pipeline, or a torch DataLoader.

index     what a file holds, one row a sample (`jobs.data.beton.INDEX`)
plan      what an epoch takes from it, one row a sample in the order of loading: index and box (`PLAN`)
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache as once_a_process
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from jobs.cluster.claims import claimed
from jobs.data.augment import BOX, eval_boxes, held_out, shuffled, train_boxes
from jobs.data.beton import INDEX, DataError, encoded, read_index, sha256_file, write_beton, write_sha256
from jobs.data.sources import READERS, Part, content_key, fitted
from jobs.experiment.files import sha256_of, write_json
from jobs.experiment.limits import batch_conflict, data_violations
from jobs.experiment.specs import DataSpec, image_size

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DataError", "Dataset", "EvalLoader", "TrainLoader", "check_data", "prepare"]

FORMAT_VERSION: Final = 1  # raise it when the same settings would write other bytes
ALWAYS_HASHED_BYTES: Final = 256 << 20  # larger files are hashed once, then known by size and time of change
PLAN: Final = np.dtype(INDEX.descr + BOX.descr)
INSTALL_FFCV: Final = "run slurm/install.sh, which builds it, or ask for data.loader: torch by name"
IMAGENET: Final = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# mean and standard deviation of the training images' channels, in units of white
CHANNELS: Final = {
    "digits": ((0.313,) * 3, (0.357,) * 3),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "synthetic": ((0.5,) * 3, (0.139,) * 3),
    "imagefolder": IMAGENET,
    "beton": IMAGENET,
}


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set that is prepared on this machine's disk."""

    classes: int
    img_size: int
    train: Path
    test: Path
    train_samples: int
    val_samples: int
    test_samples: int
    sha256: str  # of what both files hold


def check_data(data: DataSpec) -> list[str]:
    """Everything that is wrong with `data` on this machine and can be told in a moment; each error names a key or a file, and the remedy."""
    problems = _value_problems(data)
    if data.loader == "ffcv" and find_spec("ffcv") is None:
        problems.append(f"data.loader: ffcv is not installed: {INSTALL_FFCV}")
    return problems + (_beton_problems(data) if data.source == "beton" else READERS[data.source].problems(data))


def _value_problems(data: DataSpec) -> list[str]:
    """The rules of `jobs.experiment.limits` that `data` breaks. A path that is not set is left to the source, which says what to set it to."""
    return [
        f"data.{broken.field} is {broken.value}: it {broken.rule}" if broken.value is not None else f"data.{broken.field}: {broken.rule}"
        for broken in data_violations(data)
        if broken.field not in ("path", "test_path") or getattr(data, broken.field) is not None
    ]


def _beton_problems(data: DataSpec) -> list[str]:
    problems = [
        f"data.{key} is not set: give the .beton file of the {part} images"
        for key, part in (("path", "training"), ("test_path", "test"))
        if getattr(data, key) is None
    ]
    for path in (data.path, data.test_path):
        try:
            if path is not None:
                read_index(Path(path).expanduser())
        except DataError as error:
            problems.append(str(error))
    return problems


def prepare(data: DataSpec, cache: Path) -> Dataset:
    """The data set on disk, written first if `cache` does not hold it. Several processes may ask at once: one writes, the others wait.

    Raises DataError, which names the file and the remedy. FFCV's compiled code is kept in `cache` too, unless NUMBA_CACHE_DIR says where.
    """
    if problems := check_data(data):
        raise DataError("; ".join(problems))
    cache = cache.expanduser().absolute()
    os.environ.setdefault("NUMBA_CACHE_DIR", str(cache / "numba"))
    try:
        if data.source == "beton":
            train, test = (Path(path).expanduser().absolute() for path in (data.path or "", data.test_path or ""))
            return _described(data, train, test, None, cache)
        folder = cache / f"{data.source}-{content_key(data, image_size(data), FORMAT_VERSION)}"
        with claimed(cache / f"{folder.name}.lock"):
            if not (folder / "source.json").exists():
                _write(data, folder)
        classes = json.loads((folder / "source.json").read_text())["classes"]
        try:
            return _described(data, folder / "train.beton", folder / "test.beton", classes, cache)
        except DataError as error:
            raise DataError(f"{error}; or remove {folder}, and the next run writes it again") from error
    except OSError as error:
        raise DataError(
            f"{error.filename or cache}: {error.strerror}: free space there, or set cluster.cache to a folder that can be written"
        ) from error


def _write(data: DataSpec, folder: Path) -> None:
    """Fills `folder`; source.json comes last and says that all is there. What a killed writer left is removed first."""
    shutil.rmtree(folder, ignore_errors=True)
    img_size = image_size(data)
    content = READERS[data.source].read(data, img_size)
    try:
        for name, part in (("train", content.train), ("test", content.test)):
            _write_part(data, img_size, part, folder / f"{name}.beton")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error
    write_json(folder / "source.json", {"source": data.source, "path": data.path, "classes": content.classes})


def _write_part(data: DataSpec, img_size: int, part: Part, path: Path) -> None:
    def encode(sample: int):
        image = fitted(part.image(sample), img_size, data.max_resolution)
        return encoded(image, jpg=data.write_mode == "jpg" and image.shape[:2] != (img_size, img_size))

    write_beton(path, encode, part.labels)
    write_sha256(path)


def _described(data: DataSpec, train: Path, test: Path, classes: int | None, cache: Path) -> Dataset:
    """What the two files hold, after their structure and their digests were checked."""
    indices = [read_index(path) for path in (train, test)]
    digests = [_verified(path, cache) for path in (train, test)]
    val = int(held_out(indices[0]["label"], data.val_fraction, data.split_seed).sum())
    return Dataset(
        classes=classes or int(max(index["label"].max() for index in indices)) + 1,
        img_size=image_size(data),
        train=train,
        test=test,
        train_samples=len(indices[0]) - val,
        val_samples=val,
        test_samples=len(indices[1]),
        sha256=hashlib.sha256("".join(digests).encode()).hexdigest(),
    )


def _verified(path: Path, cache: Path) -> str:
    """The digest of `path`, which is the one kept beside it, if any is kept."""
    status = path.stat()
    digest = _hashed(path.resolve(), status.st_size, status.st_mtime_ns, cache)
    kept = sha256_file(path)
    if kept.exists() and kept.read_text().split()[:1] != [digest]:
        raise DataError(
            f"{path}: its content is not what was written (sha256 {digest}, in {kept.name} another): "
            f"remove {path.parent} to have it written again, or copy the file again"
        )
    return digest


@once_a_process
def _hashed(path: Path, size: int, mtime_ns: int, cache: Path) -> str:
    """The digest of a file; that of a large one is remembered in `cache` for as long as size and time of change stay."""
    if size <= ALWAYS_HASHED_BYTES:
        return sha256_of(path)
    state = {"path": str(path), "size": size, "mtime_ns": mtime_ns}
    memory = cache / "hashed" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:16]}.json"
    with claimed(memory.with_suffix(".lock")):
        known = json.loads(memory.read_text()) if memory.exists() else {}
        if {key: known.get(key) for key in state} != state:
            known = {**state, "sha256": sha256_of(path)}
            write_json(memory, known)
    return known["sha256"]


class Feed(Protocol):
    """Decodes what a plan says, in its order."""

    def batches(self, plan: NDArray[np.void]) -> Iterator[NDArray[np.uint8]]:
        """(b, img_size, img_size, 3) RGB; b is the feed's batch size, or less at the end. A batch is valid until the next one is asked for."""


def _feed(data: DataSpec, path: Path, img_size: int, batch_size: int, threads: int) -> Feed:
    if data.loader == "ffcv":
        from jobs.data.ffcv_loader import FfcvFeed

        return FfcvFeed(path, img_size=img_size, batch_size=batch_size, threads=threads)
    from jobs.data.torch_loader import TorchFeed

    return TorchFeed(path, img_size=img_size, batch_size=batch_size, threads=threads)


def _plan(index: NDArray[np.void], samples: NDArray[np.integer], boxes: NDArray[np.void]) -> NDArray[np.void]:
    """PLAN (n,) of `samples`, positions in the file."""
    plan = np.empty(len(samples), PLAN)
    for columns, rows in ((INDEX.names, index[samples]), (BOX.names, boxes)):
        for name in columns:
            plan[name] = rows[name]
    return plan


def _tensors(feed: Feed, plan: NDArray[np.void], channels: tuple[tuple[float, ...], tuple[float, ...]]) -> Iterator[tuple["Tensor", "Tensor"]]:
    """Batches of the feed as normalised images (b, 3, H, W) float32 and labels (b,) int64, which are the caller's to keep."""
    import torch

    mean, std = (255 * torch.tensor(values).view(1, 3, 1, 1) for values in channels)
    first = 0
    for pixels in feed.batches(plan):
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        labels = torch.from_numpy(plan["label"][first : first + len(images)].copy())
        first += len(images)
        yield images.sub_(mean).div_(std), labels


class TrainLoader:
    """Epochs of augmented training batches, of which this rank takes its share.

    An epoch's order is cut into global batches of `batch_size`, each of them into micro-batches of `micro_batch_size` for every rank in turn: which
    images make one optimizer step depends on neither. Images that do not fill a last global batch are left out of that epoch.
    """

    def __init__(
        self, data: DataSpec, dataset: Dataset, *, seed: int, batch_size: int, micro_batch_size: int, rank: int, world: int, threads: int
    ) -> None:
        if conflict := batch_conflict(batch_size, micro_batch_size, world):
            raise DataError(f"batch_size {conflict}")
        self.steps_per_epoch = dataset.train_samples // batch_size
        if self.steps_per_epoch == 0:
            raise DataError(
                f"{dataset.train}: {dataset.train_samples} training images do not fill one batch of {batch_size}: "
                f"lower recipe.batch_size to at most {dataset.train_samples}"
            )
        self._data, self._dataset, self._seed, self._rank = data, dataset, seed, rank
        self._shape = (self.steps_per_epoch, batch_size // (micro_batch_size * world), world, micro_batch_size)
        self._index = read_index(dataset.train)
        self._samples = np.flatnonzero(~held_out(self._index["label"], data.val_fraction, data.split_seed))
        self._feed = _feed(data, dataset.train, dataset.img_size, micro_batch_size, threads)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[tuple["Tensor", "Tensor"]]:
        """Micro-batches from step `first_step` of the epoch on: images (micro_batch_size, 3, H, W) float32, labels int64. Leaving early is safe."""
        order = shuffled(self._samples, self._seed, epoch)[: np.prod(self._shape)]
        samples = order.reshape(self._shape)[first_step:, :, self._rank].reshape(-1)
        rows = self._index[samples]
        boxes = train_boxes(self._data, self._dataset.img_size, rows["height"], rows["width"], samples, seed=self._seed, epoch=epoch)
        return _tensors(self._feed, _plan(self._index, samples, boxes), CHANNELS[self._data.source])


class EvalLoader:
    """Every image of a split, each on one rank alone, without augmentation."""

    def __init__(
        self, data: DataSpec, dataset: Dataset, split: Literal["train", "val", "test"], *, batch_size: int, rank: int, world: int, threads: int
    ) -> None:
        path = dataset.test if split == "test" else dataset.train
        index = read_index(path)
        samples = np.arange(len(index))
        if split != "test":
            samples = np.flatnonzero(held_out(index["label"], data.val_fraction, data.split_seed) == (split == "val"))
        if len(samples) == 0:
            raise DataError(f"{path}: the {split} split is empty: data.val_fraction is {data.val_fraction}")
        self.batches_of_longest_rank = -(-(-(-len(samples) // world)) // batch_size)  # what all ranks must run where a forward pass is collective
        samples = samples[rank::world]
        boxes = eval_boxes(data, dataset.img_size, index["height"][samples], index["width"][samples])
        self._plan = _plan(index, samples, boxes)
        self._channels = CHANNELS[data.source]
        self._feed = _feed(data, path, dataset.img_size, batch_size, threads)

    def batches(self) -> Iterator[tuple["Tensor", "Tensor"]]:
        """Images (b, 3, H, W) float32 and labels (b,) int64, in the file's order; the last batch may be smaller. Leaving early is safe."""
        return _tensors(self._feed, self._plan, self._channels)
