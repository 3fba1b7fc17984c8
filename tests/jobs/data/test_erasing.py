"""Rectangles and noise against timm's RandomErasing."""

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp

from jobs.data.erasing import draw_rectangles, erase, noise_seeds
from jobs.experiment.specs import RecipeSpec
from models.torchvision_shim import load_timm
from tests.support.statistics import alike

load_timm()
from timm.data import random_erasing  # noqa: E402

DRAWS, SIZE = 10_000, 32


def drawn(count: int = DRAWS, epoch: int = 0, **recipe: Any) -> np.ndarray:
    return draw_rectangles(RecipeSpec(**recipe), np.arange(count), img_size=SIZE, seed=7, epoch=epoch)


def timms(monkeypatch: pytest.MonkeyPatch, probability: float, most: int) -> list[list[tuple[int, int, int, int]]]:
    """(rows, cols, top, left) of the rectangles that timm erases in each of so many images."""
    calls: list[tuple[int, int, int, int]] = []

    class Image:
        def __setitem__(self, where: Any, value: tuple[int, int]) -> None:
            calls.append((*value, where[1].start, where[2].start))

    monkeypatch.setattr(random_erasing, "_get_pixels", lambda per_pixel, rand_color, size, **_: size[1:])
    eraser = random_erasing.RandomErasing(probability, mode="pixel", max_count=most, device="cpu")
    random.seed(3)
    images = []
    for _ in range(DRAWS):
        calls.clear()
        eraser._erase(Image(), 3, SIZE, SIZE, torch.float32)
        images.append(list(calls))
    return images


@pytest.mark.parametrize(("probability", "most"), [(0.25, 1), (0.9, 3), (1.0, 1)])
def test_rectangles_are_distributed_as_timms(monkeypatch: pytest.MonkeyPatch, probability: float, most: int) -> None:
    theirs = timms(monkeypatch, probability, most)
    table = drawn(random_erase=probability, random_erase_count=most)
    mine = [[(rows, cols, top, left) for top, left, rows, cols in row if rows] for row in table.tolist()]
    assert alike(Counter(map(len, mine)), Counter(map(len, theirs)))
    for index in range(4):
        values = [Counter(rectangle[index] for image in images for rectangle in image) for images in (mine, theirs)]
        assert alike(*values)
    areas = [[rows * cols for image in images for rows, cols, *_ in image] for images in (mine, theirs)]
    assert ks_2samp(*areas).pvalue > 1e-6
    slack = [Counter((SIZE - rows - top, SIZE - cols - left) for image in images for rows, cols, top, left in image) for images in (mine, theirs)]
    assert alike(*slack)


def test_rectangles_lie_inside_and_depend_on_their_own_sample_alone() -> None:
    table = drawn(random_erase=0.5, random_erase_count=2)
    assert (table["top"] >= 0).all() and (table["top"] + table["rows"] <= SIZE).all() and (table["left"] + table["cols"] <= SIZE).all()
    some = np.array([5000, 4, 77])
    recipe = RecipeSpec(random_erase=0.5, random_erase_count=2)
    assert (draw_rectangles(recipe, some, img_size=SIZE, seed=7, epoch=0) == table[some]).all()
    assert (drawn(epoch=1, random_erase=0.5, random_erase_count=2) != table).any()
    assert not drawn(random_erase=0.0)["rows"].any() and drawn(0, random_erase=1.0).shape == (0, 1)


@pytest.mark.parametrize("mode", ["pixel", "rand", "const"])
def test_only_the_rectangle_changes_and_to_what_its_mode_says(mode: str) -> None:
    images = torch.full((2, 3, SIZE, SIZE), 9.0)
    table = np.zeros((2, 2), [("top", "<i4"), ("left", "<i4"), ("rows", "<i4"), ("cols", "<i4")])
    table[1, 0] = (3, 5, 20, 10)
    erase(images, table, np.array([1, 2]), mode, torch.Generator())
    part = images[1, :, 3:23, 5:15].clone()
    images[1, :, 3:23, 5:15] = 9.0
    assert (images == 9.0).all(), "nothing outside"
    colours = part.flatten(1)
    if mode == "const":
        assert not colours.any()
    elif mode == "rand":
        assert (colours == colours[:, :1]).all() and len(colours[:, 0].unique()) == 3
    else:
        assert len(colours.unique()) == colours.numel() and abs(float(colours.mean())) < 0.15 and abs(float(colours.std()) - 1) < 0.1


def test_noise_is_normal_and_depends_on_seed_epoch_and_sample_alone() -> None:
    table = drawn(300, random_erase=1.0)
    images = torch.zeros(300, 3, SIZE, SIZE)
    seeds = noise_seeds(np.arange(300), seed=7, epoch=0)
    erase(images, table, seeds, "pixel", torch.Generator())
    values = images[images != 0].numpy()
    assert ks_2samp(values, np.random.default_rng(0).standard_normal(100_000)).pvalue > 1e-3
    some = torch.zeros(2, 3, SIZE, SIZE)
    erase(some, table[[250, 3]], seeds[[250, 3]], "pixel", torch.Generator())
    assert torch.equal(some, images[[250, 3]])
    others = noise_seeds(np.arange(300), seed=7, epoch=1)
    assert len({*seeds.tolist(), *others.tolist()}) == 600 and seeds.min() >= 0
