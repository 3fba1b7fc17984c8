"""The loaders that `benchmarks.loaders` compares: each a function that loads one epoch of 224 px training images, normalised, on a CPU.

All crop at random, resize, flip and normalise. Rows with `recipe` add RandAugment m9-mstd0.5-inc1, random erasing, mixup and cutmix.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from jobs.experiment.specs import RecipeSpec

SIZE, BATCH = 224, 64
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RANDAUGMENT = "rand-m9-mstd0.5-inc1"
ERASING, MIXUP, CUTMIX, SMOOTHING = 0.25, 0.8, 1.0, 0.1
Epoch = Callable[[int], Iterable[Any]]  # number -> batches


def torchvision_loader(folder: Path, workers: int) -> Epoch:
    """ImageFolder and DataLoader, as in torchvision's references."""
    from models.torchvision_shim import load_torchvision

    load_torchvision()
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    steps = [transforms.RandomResizedCrop(SIZE), transforms.RandomHorizontalFlip(), transforms.ToTensor(), transforms.Normalize(MEAN, DEVIATION)]
    data = ImageFolder(str(folder / "images" / "train"), transforms.Compose(steps))
    loader = DataLoader(data, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    return lambda number: loader


def timm_loader(folder: Path, workers: int, recipe: bool = False) -> Epoch:
    """timm's create_loader; its prefetcher is for GPUs alone. With a recipe, its Mixup works on the batches."""
    from models.torchvision_shim import load_timm

    load_timm()
    from timm.data import ImageDataset, Mixup, create_loader

    allow_no_bits()
    augmentation = {"auto_augment": RANDAUGMENT, "re_prob": ERASING, "re_mode": "pixel", "color_jitter": 0.3} if recipe else {"color_jitter": 0.0}
    loader = create_loader(
        ImageDataset(str(folder / "images" / "train")),
        input_size=(3, SIZE, SIZE),
        batch_size=BATCH,
        is_training=True,
        use_prefetcher=False,
        hflip=0.5,
        interpolation="bicubic",
        mean=MEAN,
        std=DEVIATION,
        num_workers=workers,
        persistent_workers=workers > 0,
        **augmentation,
    )
    mixup = Mixup(mixup_alpha=MIXUP, cutmix_alpha=CUTMIX, label_smoothing=SMOOTHING, num_classes=4) if recipe else None
    return lambda number: (mixup(images, labels) if mixup else (images, labels) for images, labels in loader)


def allow_no_bits() -> None:
    """timm posterizes to 0 bits at times, which Pillow 13 refuses. Older versions gave a black image, as this does."""
    from PIL import Image, ImageOps

    posterize = ImageOps.posterize
    ImageOps.posterize = lambda image, bits: posterize(image, bits) if bits else Image.new(image.mode, image.size)


def stock_ffcv(folder: Path, workers: int, kind: str) -> Epoch:
    """FFCV as its documentation has it: its own decoder, order and transforms."""
    from ffcv.fields.basics import IntDecoder
    from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, Squeeze, ToTensor, ToTorchImage

    normalize = NormalizeImage(255 * np.array(MEAN), 255 * np.array(DEVIATION), np.float32)
    image = [RandomResizedCropRGBImageDecoder((SIZE, SIZE)), RandomHorizontalFlip(), normalize, ToTensor(), ToTorchImage(channels_last=False)]
    loader = Loader(
        str(folder / f"{kind}.beton"),
        BATCH,
        num_workers=max(workers, 1),
        order=OrderOption.RANDOM,
        os_cache=True,
        drop_last=True,
        pipelines={"image": image, "label": [IntDecoder(), ToTensor(), Squeeze()]},
    )
    return lambda number: loader


def full_recipe() -> "RecipeSpec":
    """The recipe of the rows that say so."""
    from jobs.experiment.specs import RecipeSpec

    return RecipeSpec(auto_augment=RANDAUGMENT, random_erase=ERASING, mixup=MIXUP, cutmix=CUTMIX, label_smoothing=SMOOTHING)


def ours(folder: Path, workers: int, kind: str, loader: str, interpolation: str = "area", recipe: bool = False) -> Epoch:
    """This package's TrainLoader, with as many decoding threads as workers. The recipe resizes by PIL's bicubic filter, as timm's row."""
    from jobs.data import loaders
    from jobs.data.beton import read_index
    from jobs.data.prepare import Dataset
    from jobs.experiment.specs import DataSpec

    path, threads = folder / f"{kind}.beton", max(workers, 1)
    data = DataSpec(source="imagefolder", loader=loader, augment="crop", flip=True, interpolation=interpolation, val_fraction=0.0)  # type: ignore[arg-type]
    count = len(read_index(path))
    dataset = Dataset(classes=4, img_size=SIZE, train=path, test=path, train_samples=count, val_samples=0, test_samples=count, sha256="")
    chosen = {"recipe": full_recipe()} if recipe else {}
    made = loaders.TrainLoader(data, dataset, seed=0, batch_size=BATCH, micro_batch_size=BATCH, rank=0, world=1, threads=1, **chosen)
    made._feed = loaders.feed(data, path, SIZE, BATCH, threads)  # a job on a CPU decodes with one thread
    return made.epoch


CONTENDERS: dict[str, Callable[[Path, int], Epoch]] = {
    "torchvision": torchvision_loader,
    "timm": timm_loader,
    "FFCV, jpg": lambda folder, workers: stock_ffcv(folder, workers, "jpg"),
    "FFCV, raw": lambda folder, workers: stock_ffcv(folder, workers, "raw"),
    "ours, ffcv, jpg": lambda folder, workers: ours(folder, workers, "jpg", "ffcv"),
    "ours, torch, jpg": lambda folder, workers: ours(folder, workers, "jpg", "torch"),
    "ours, ffcv, raw": lambda folder, workers: ours(folder, workers, "raw", "ffcv"),
    "ours, torch, raw": lambda folder, workers: ours(folder, workers, "raw", "torch"),
    "ours, bicubic, jpg": lambda folder, workers: ours(folder, workers, "jpg", "ffcv", "bicubic"),
    "ours, bicubic, raw": lambda folder, workers: ours(folder, workers, "raw", "ffcv", "bicubic"),
    "ours, recipe, jpg": lambda folder, workers: ours(folder, workers, "jpg", "ffcv", "bicubic", recipe=True),
    "ours, recipe, raw": lambda folder, workers: ours(folder, workers, "raw", "ffcv", "bicubic", recipe=True),
    "timm, recipe": lambda folder, workers: timm_loader(folder, workers, recipe=True),
}


def images_of(epoch: Iterable[Any]) -> int:
    """Loads an epoch; the number of its images. Each batch must be what a network takes."""
    count = 0
    for images, _ in epoch:
        assert images.dtype == torch.float32 and images.shape[1:] == (3, SIZE, SIZE)
        count += len(images)
    return count
