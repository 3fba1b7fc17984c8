"""What only the torch loader does: boxes in numpy, damaged images by name, workers."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from jobs.data.augment import eval_boxes
from jobs.data.beton import DataError, encoded, read_index, write_beton
from jobs.data.loaders import SELECTION, selected
from jobs.data.prepare import prepare
from jobs.data.torch_loader import TorchFeed, boxed
from jobs.experiment.specs import DataSpec
from tests.support.images import SMALL, joined, train_loader

SIZE = 16


def row(**fields: int) -> np.void:
    """One row of a selection."""
    rows = np.zeros(1, SELECTION)
    for name, value in fields.items():
        rows[name] = value
    return rows[0]


def test_a_box_that_reaches_outside_of_the_image_is_filled_up_with_zeros_and_a_flip_mirrors_it():
    image = np.arange(1, 49, dtype=np.uint8).reshape(4, 4, 3)
    shown = boxed(image, row(top=-1, left=2, rows=4, cols=4), 4)
    assert (shown[1:, :2] == image[:3, 2:]).all() and not shown[0].any() and not shown[:, 2:].any()
    assert (boxed(image, row(top=-1, left=2, rows=4, cols=4, flip=1), 4) == shown[:, ::-1]).all()
    assert not boxed(image, row(top=9, left=9, rows=4, cols=4), 4).any()


def test_a_box_of_another_size_is_resized_by_area():
    image = np.repeat(np.array([[0, 100], [200, 40]], np.uint8).repeat(2, 0).repeat(2, 1)[..., None], 3, axis=2)
    assert boxed(image, row(rows=4, cols=4), 2)[..., 0].tolist() == [[0, 100], [200, 40]]
    assert boxed(image, row(rows=4, cols=4), 1)[..., 0].tolist() == [[85]]


@pytest.mark.parametrize("damage", ["no JPEG", "other dimensions"])
def test_a_damaged_jpeg_is_named_by_file_and_byte(tmp_path, damage):
    image = np.kron(np.random.default_rng(0).integers(0, 256, (4, 4, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    write_beton(tmp_path / "jpg.beton", lambda sample: encoded(image, True), np.zeros(3, int))
    index = read_index(tmp_path / "jpg.beton")
    selection = selected(index, np.arange(3), eval_boxes(DataSpec(), SIZE, index["height"], index["width"]))
    if damage == "no JPEG":
        content = bytearray((tmp_path / "jpg.beton").read_bytes())
        content[index["ptr"][1] : index["ptr"][1] + 40] = bytes(40)
        (tmp_path / "jpg.beton").write_bytes(content)
    else:
        selection["height"][1] += 1
    with pytest.raises(DataError, match=f"jpg.beton: damaged: the image at byte {index['ptr'][1]} is no JPEG of 32 x "):
        list(TorchFeed(tmp_path / "jpg.beton", img_size=SIZE, batch_size=8, threads=1).batches(selection))


@pytest.mark.slow
def test_torch_workers_give_the_bits_of_one_process_and_survive_an_early_exit(tmp_path):
    data = replace(SMALL, loader="torch")
    dataset = prepare(data, tmp_path)
    alone = joined(train_loader(data, dataset).epoch(0))[0]
    several = train_loader(data, dataset, threads=2)
    next(several.epoch(5))
    assert torch.equal(joined(several.epoch(0))[0], alone)
