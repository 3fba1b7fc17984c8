"""Prepared files as batches of tensors: the same tensors from either loader, for any number of ranks.

Both loaders read the same files, follow the same split, order, boxes and flips (`jobs.data.augment`), and decode with the same functions
(`jobs.data.decoding`). So `loader` only decides whose threads decode: FFCV's pipeline, or a torch DataLoader. Images are normalised on the device
(`jobs.data.delivery`).

index       what a file holds, one row for each sample (`jobs.data.beton.INDEX`)
selection   what an epoch takes from a file, one row for each sample in the order of loading: index and box (`SELECTION`)
"""

import math
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from jobs.data.augment import eval_boxes, held_out, repeated, shuffled, train_boxes
from jobs.data.augmentation import Augmentation
from jobs.data.beton import DataError, read_index
from jobs.data.decoding import SELECTION, Channels
from jobs.data.delivery import HostBatch, delivered
from jobs.data.prepare import Dataset
from jobs.data.row_starts import starts_of
from jobs.experiment.augment_limits import images_of_epoch
from jobs.experiment.limits import batch_conflict
from jobs.experiment.sources import SOURCES
from jobs.experiment.specs import DataSpec, RecipeSpec

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PLAIN: Final = RecipeSpec()  # no augmentation but the data's


class TrainLoader:
    """Epochs of augmented training batches: this rank's part of them.

    The order of an epoch is cut into global batches of `batch_size`, and each of them into micro-batches of `micro_batch_size` for every rank in
    turn. So the images of an optimizer step depend neither on the ranks nor on the micro-batches. Images that do not fill a last global batch are
    left out of that epoch.
    """

    def __init__(
        self,
        data: DataSpec,
        dataset: Dataset,
        *,
        seed: int,
        batch_size: int,
        micro_batch_size: int,
        rank: int,
        world: int,
        threads: int,
        device: "torch.device | str" = "cpu",
        recipe: RecipeSpec = PLAIN,
    ) -> None:
        """`threads`: cores of this rank. `device`: where the batches are wanted. `recipe`: how images and targets are augmented."""
        if conflict := batch_conflict(batch_size, micro_batch_size, world):
            raise DataError(f"batch_size {conflict}")
        self.steps_per_epoch = images_of_epoch(recipe, dataset.train_samples) // batch_size
        if self.steps_per_epoch == 0:
            raise DataError(
                f"{dataset.train}: {dataset.train_samples} training images do not fill one batch of {batch_size}: "
                f"lower recipe.batch_size to at most {dataset.train_samples}"
            )
        self._data, self._dataset, self._seed, self._rank = data, dataset, seed, rank
        self._shape = (self.steps_per_epoch, batch_size // (micro_batch_size * world), world, micro_batch_size)
        self._index = read_index(dataset.train)
        self._starts = starts_of(dataset.train, self._index)
        self._samples = np.flatnonzero(~held_out(self._index["label"], data.val_fraction, data.split_seed))
        self._device, self._recipe = device, replace(recipe, batch_size=batch_size, micro_batch_size=micro_batch_size)
        self._augmentation = augmentation(self._recipe, data, dataset, seed)
        decoders, scaled = decoding_threads(threads, device), data.decode == "scaled"
        self._feed = feed(data, dataset.train, dataset.img_size, micro_batch_size, decoders, scaled=scaled)

    def epoch(self, epoch: int, first_step: int = 0) -> Generator[tuple["Tensor", "Tensor"]]:
        """Micro-batches from step `first_step` of the epoch on: images (micro_batch_size, 3, H, W) float32, labels int64. Leaving early is safe.

        With mixup or cutmix, soft targets (micro_batch_size, classes) float32 take the labels' place.
        """
        count, batch_size = math.prod(self._shape), self._recipe.batch_size
        samples, drawn_as = repeated(shuffled(self._samples, self._seed, epoch), self._recipe.repeated_augment, count, batch_size)
        positions = np.arange(count).reshape(self._shape)[first_step:, :, self._rank].reshape(-1)
        samples, drawn_as = samples[positions], drawn_as[positions]
        rows = self._index[samples]
        boxes = train_boxes(self._data, self._dataset.img_size, rows["height"], rows["width"], drawn_as, seed=self._seed, epoch=epoch)
        selection = self._augmentation.with_operations(selected(self._index, samples, boxes, self._starts), drawn_as, epoch)
        batches = delivered(host_batches(self._feed, selection), channels_of(self._data), self._device)
        return self._augmentation.changed(batches, drawn_as, positions, epoch)


class EvalLoader:
    """Every image of a split without augmentation, each on exactly one rank."""

    def __init__(
        self,
        data: DataSpec,
        dataset: Dataset,
        split: Literal["train", "val", "test"],
        *,
        batch_size: int,
        rank: int,
        world: int,
        threads: int,
        device: "torch.device | str" = "cpu",
    ) -> None:
        """`threads`: cores of this rank. `device`: where the batches are wanted."""
        path = dataset.test if split == "test" else dataset.train
        index = read_index(path)
        samples = np.arange(len(index))
        if split != "test":
            samples = np.flatnonzero(held_out(index["label"], data.val_fraction, data.split_seed) == (split == "val"))
        if len(samples) == 0:
            raise DataError(f"{path}: the {split} split is empty: data.val_fraction is {data.val_fraction}")
        samples_of_longest_rank = math.ceil(len(samples) / world)
        # Every rank must run this many forward passes where a forward pass is a collective.
        self.batches_of_longest_rank = math.ceil(samples_of_longest_rank / batch_size)
        samples = samples[rank::world]
        boxes = eval_boxes(data, dataset.img_size, index["height"][samples], index["width"][samples])
        self._selection = selected(index, samples, boxes, starts_of(path, index))
        self._channels, self._device = channels_of(data), device
        self._feed = feed(data, path, dataset.img_size, batch_size, decoding_threads(threads, device))

    def batches(self) -> Generator[tuple["Tensor", "Tensor"]]:
        """Images (b, 3, H, W) float32 and labels (b,) int64, in the file's order; the last batch may be smaller. Leaving early is safe."""
        return delivered(host_batches(self._feed, self._selection), self._channels, self._device)


class Feed(Protocol):
    """A decoder of one file."""

    def batches(self, selection: NDArray[np.void]) -> Generator[NDArray[np.uint8]]:
        """The images of `selection` in its order, (b, img_size, img_size, 3) RGB. A batch is valid until the next one is asked for.

        b is the feed's batch size, or less at the end.
        """


def feed(data: DataSpec, path: Path, img_size: int, batch_size: int, threads: int, *, scaled: bool = False) -> Feed:
    """The feed that `data.loader` names. `scaled`: see `jobs.data.decoding.fill`; for training alone."""
    options: dict[str, Any] = {"img_size": img_size, "batch_size": batch_size, "threads": threads}
    if data.loader == "ffcv":
        from jobs.data.ffcv_loader import FfcvFeed

        return FfcvFeed(path, **options, interpolation=data.interpolation, scaled=scaled)
    from jobs.data.torch_loader import TorchFeed

    return TorchFeed(path, **options, interpolation=data.interpolation, scaled=scaled)


def channels_of(data: DataSpec) -> Channels:
    """Mean and standard deviation of the training images, by channel, in units of white."""
    source = SOURCES[data.source]
    return source.mean, source.std


def augmentation(recipe: RecipeSpec, data: DataSpec, dataset: Dataset, seed: int) -> Augmentation:
    """What the recipe does to the images of a data set."""
    sizes = {"img_size": dataset.img_size, "classes": dataset.classes}
    return Augmentation(recipe=recipe, **sizes, interpolation=data.interpolation, channels=channels_of(data), seed=seed)


def decoding_threads(cores: int, device: "torch.device | str") -> int:
    """The threads that decode for a rank with so many cores. The network's own threads take the cores of a CPU, a GPU's launches take one."""
    return max(1, cores - 1) if str(device).startswith("cuda") else 1


def selected(
    index: NDArray[np.void], samples: NDArray[np.integer], boxes: NDArray[np.void], starts: NDArray[np.int64] | None = None
) -> NDArray[np.void]:
    """SELECTION (n,) of `samples`, which are positions in the file, and their boxes. starts: of all samples (`jobs.data.row_starts.starts_of`)."""
    selection = np.empty(len(samples), SELECTION)
    for columns in (index[samples], boxes):
        for name in columns.dtype.names or ():
            selection[name] = columns[name]
    selection["starts"] = 0 if starts is None else starts[samples]
    return selection


def host_batches(feed: Feed, selection: NDArray[np.void]) -> Generator[HostBatch]:
    """Batches of the feed with their labels, int64. A batch is valid until the next one is asked for."""
    first, labels = 0, (selection["image"] if "image" in (selection.dtype.names or ()) else selection)["label"]
    with closing(feed.batches(selection)) as batches:
        for images in batches:
            yield images, labels[first : first + len(images)]
            first += len(images)
