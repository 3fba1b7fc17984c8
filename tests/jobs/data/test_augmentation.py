"""A recipe's augmentation through both loaders: equal tensors for any ranks, micro-batches, threads and restarts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from jobs.data.augment import held_out, shuffled, train_boxes
from jobs.data.augmentation import fill_augmented
from jobs.data.beton import read_index
from jobs.data.decoding import SELECTION
from jobs.data.loaders import augmentation, channels_of, feed, selected
from jobs.data.operations import NAMES, draw_operations
from jobs.data.prepare import prepare
from jobs.experiment.specs import DataSpec, RecipeSpec
from models.torchvision_shim import load_timm
from tests.support.images import SMALL, joined, pixels, stored, train_loader

EVERYTHING = RecipeSpec(
    auto_augment="rand-m9-mstd0.5-inc1", random_erase=0.4, random_erase_count=2, mixup=0.8, cutmix=1.0, mixup_mode="pair", repeated_augment=3
)
ARGUMENTS = {"Rotate", "Posterize", "Solarize", "SolarizeAdd", "Color", "Contrast", "Brightness", "Sharpness"}
ARGUMENTS |= {"ShearX", "ShearY", "TranslateX", "TranslateY"}  # operations that take one
LOADERS = pytest.mark.parametrize("loader", ["ffcv", "torch"])


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def epoch(cache: Path, recipe: RecipeSpec, number: int = 1, first_step: int = 0, data: DataSpec = SMALL, **settings: Any) -> tuple[torch.Tensor, ...]:
    loader = train_loader(data, prepare(data, cache), recipe=recipe, **settings)
    return joined(loader.epoch(number, first_step))


def both(first: tuple[torch.Tensor, ...], second: tuple[torch.Tensor, ...]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@LOADERS
@pytest.mark.parametrize(("world", "micro"), [(1, 16), (2, 4), (1, 2), (4, 4)])
def test_the_same_draws_reach_both_loaders_any_ranks_and_micro_batches(cache: Path, loader: str, world: int, micro: int) -> None:
    data = replace(SMALL, loader=loader)
    alone = epoch(cache, EVERYTHING)
    ranks = [list(train_loader(data, prepare(data, cache), micro=micro, rank=rank, world=world, recipe=EVERYTHING).epoch(1)) for rank in range(world)]
    together = joined(batches[number] for number in range(len(ranks[0])) for batches in ranks)
    assert both(alone, together)
    assert alone[1].shape == (80, 4) and torch.allclose(alone[1].sum(1), torch.ones(80))


def test_threads_change_nothing(cache: Path) -> None:
    data, dataset = SMALL, prepare(SMALL, cache)
    samples = np.arange(24)
    index = read_index(dataset.train)[samples]
    boxes = train_boxes(data, 16, index["height"], index["width"], samples, seed=0, epoch=0)
    recipe = RecipeSpec(auto_augment="3a", color_jitter=0.4)
    rows = augmentation(recipe, data, dataset, 0).with_operations(selected(read_index(dataset.train), samples, boxes), samples, 0)
    images = []
    for threads in (1, 2):
        decoder = feed(data, dataset.train, 16, 8, threads)
        images.append(np.concatenate([batch.copy() for batch in decoder.batches(rows)]))
    assert (images[0] == images[1]).all() and images[0].shape == (24, 16, 16, 3)


@pytest.mark.parametrize("first_step", [1, 4])
def test_an_epoch_goes_on_from_any_step(cache: Path, first_step: int) -> None:
    whole, tail = epoch(cache, EVERYTHING), epoch(cache, EVERYTHING, first_step=first_step)
    assert both((whole[0][16 * first_step :], whole[1][16 * first_step :]), tail)


def test_epochs_and_seeds_differ(cache: Path) -> None:
    recipe = RecipeSpec(auto_augment="rand-m9", mixup=0.8)
    first = epoch(cache, recipe)
    assert not both(first, epoch(cache, recipe, 2)) and not both(first, epoch(cache, recipe, seed=1)) and both(first, epoch(cache, recipe))


def test_a_plain_recipe_changes_nothing(cache: Path) -> None:
    data = replace(SMALL, augment="none", flip=False)
    images, labels = epoch(cache, RecipeSpec(), data=data)
    assert labels.dtype == torch.int64
    whole = {image.tobytes() for image in stored(prepare(data, cache).train)}
    assert {image.tobytes() for image in pixels(data, images)} <= whole


def test_operations_come_after_box_and_flip_and_fill_with_the_mean(cache: Path) -> None:
    """The same images by timm's functions, one after the other, on the plain loader's images."""
    load_timm()
    from timm.data import auto_augment as timm_ops

    recipe = RecipeSpec(auto_augment="rand-m9-n3-p0.9-inc1")
    plain, changed = (pixels(SMALL, epoch(cache, settings)[0]) for settings in (RecipeSpec(), recipe))
    index = read_index(prepare(SMALL, cache).train)
    order = shuffled(np.flatnonzero(~held_out(index["label"], SMALL.val_fraction, SMALL.split_seed)), 0, 1)[:80]
    table = draw_operations(recipe, order, img_size=16, interpolation="area", seed=0, epoch=1)
    assert table is not None
    grey = tuple(round(255 * mean) for mean in channels_of(SMALL)[0])
    expected = []
    for image, row in zip(plain, table.tolist(), strict=True):
        shown = Image.fromarray(image)
        for code, resample, value in row:
            name = NAMES[code]
            if code and not (name == "Posterize" and value < 1):
                arguments = (int(value) if name in ("Posterize", "Solarize", "SolarizeAdd") else value,) if name in ARGUMENTS else ()
                shown = timm_ops.NAME_TO_OP[name](shown, *arguments, fillcolor=grey, resample=Image.Resampling(resample or 2))
        expected.append(np.asarray(shown))
    assert (changed == np.stack(expected)).all() and (changed != plain).any()


def test_repeats_of_an_image_are_drawn_apart_and_are_no_partners(cache: Path) -> None:
    data = replace(SMALL, augment="shift", shift_px=4)
    recipe = RecipeSpec(repeated_augment=3, mixup=1.0)
    images, _ = epoch(cache, replace(recipe, mixup=0.0), data=data)
    assert len({image.tobytes() for image in pixels(data, images)}) > 60, "27 images, each three times"
    loader = train_loader(data, prepare(data, cache), recipe=recipe)
    assert loader.steps_per_epoch == 5


def test_rows_without_operations_are_filled_as_ever(cache: Path) -> None:
    dataset = prepare(SMALL, cache)
    samples, index = np.arange(6), read_index(dataset.train)
    boxes = train_boxes(SMALL, 16, index["height"][samples], index["width"][samples], samples, seed=0, epoch=0)
    rows = selected(index, samples, boxes)
    content = np.memmap(dataset.train, np.uint8, "r")
    changes = augmentation(RecipeSpec(auto_augment="v0"), SMALL, dataset, 0)
    with_operations = changes.with_operations(rows, samples, 0)
    plain, changed = np.empty((6, 16, 16, 3), np.uint8), np.empty((6, 16, 16, 3), np.uint8)
    fill_augmented(content, rows, plain, "area", 1)
    assert rows.dtype == SELECTION and (with_operations["image"] == rows).all()
    with_operations["operations"]["code"][:] = 0
    fill_augmented(content, with_operations, changed, "area", 1)
    assert (plain == changed).all()
    assert augmentation(RecipeSpec(), SMALL, dataset, 0).with_operations(rows, samples, 0) is rows
