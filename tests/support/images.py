"""Small data sets in their real formats, and loaders with defaults that suit a test."""

import pickle
import struct

import numpy as np
import torch
from PIL import Image

from jobs.data.beton import read_index
from jobs.data.loaders import PLAIN, EvalLoader, TrainLoader, channels_of
from jobs.data.sources import CIFARS
from jobs.experiment.specs import DataSpec

SMALL = DataSpec(source="synthetic", samples=96, classes=4, img_size=16, augment="shift", flip=True)


class Python2Pickler(pickle._Pickler):
    """Writes every string as Python 2 did, as the official CIFAR files hold them."""

    def save_string(self, value):
        raw = value.encode("latin1") if isinstance(value, str) else value
        self.write(pickle.BINSTRING + struct.pack("<i", len(raw)) + raw)
        self.memoize(value)

    def save_global(self, value, name=None):
        self.write(f"c{value.__module__}\n{value.__name__}\n".replace("numpy._core", "numpy.core").encode())
        self.memoize(value)

    dispatch = {**pickle._Pickler.dispatch, str: save_string, bytes: save_string}


def write_cifar(folder, source="cifar10", count=20):
    """The official files with `count` random images each; returns all training images (n, 3, 32, 32) and labels."""
    cifar = CIFARS[source]
    (folder / cifar.folder).mkdir(parents=True)
    generator, images, labels = np.random.default_rng(0), [], []
    for name in (*cifar.train, cifar.test):
        pixels = generator.integers(0, 256, (count, 3072), dtype=np.uint8)
        classes = generator.integers(0, cifar.classes, count).tolist()
        with (folder / cifar.folder / name).open("wb") as file:
            Python2Pickler(file, protocol=2).dump({"data": pixels, cifar.labels.decode(): classes, "batch_label": "a batch"})
        if name != cifar.test:
            images.append(pixels.reshape(-1, 3, 32, 32))
            labels += classes
    return np.concatenate(images), np.array(labels)


def write_folder(root, classes=("cat", "ant"), count=3, size=(50, 40), suffix=".png"):
    """root/<class>/<n>.png"""
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for sample in range(count):
            pixels = np.random.default_rng([number, sample]).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{sample}{suffix}")


def train_loader(data, dataset, *, seed=0, batch_size=16, micro=16, rank=0, world=1, threads=1, recipe=PLAIN):
    share = {"rank": rank, "world": world, "threads": threads}
    return TrainLoader(data, dataset, seed=seed, batch_size=batch_size, micro_batch_size=micro, recipe=recipe, **share)


def eval_loader(data, dataset, split="test", *, batch_size=8, rank=0, world=1, threads=1):
    return EvalLoader(data, dataset, split, batch_size=batch_size, rank=rank, world=world, threads=threads)


def joined(batches):
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def pixels(data, images):
    """Normalised images back to uint8 (n, H, W, 3)."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in channels_of(data))
    return ((images * std + mean) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def stored(path):
    """All images of a file of raw images of one size."""
    content, index = path.read_bytes(), read_index(path)
    return np.stack([np.frombuffer(content, np.uint8, row["size"], row["ptr"]).reshape(row["height"], row["width"], 3) for row in index])
