"""What only the torch loader does: damaged images by name, workers."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from jobs.data.augment import eval_boxes
from jobs.data.beton import DataError, encoded, read_index
from jobs.data.loaders import selected
from jobs.data.prepare import prepare
from jobs.data.shards import write_beton
from jobs.data.torch_loader import TorchFeed
from jobs.experiment.specs import DataSpec, RecipeSpec
from tests.support.images import SMALL, joined, train_loader

SIZE = 16


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
    with pytest.raises(DataError, match=f"jpg.beton: damaged: the image at byte {index['ptr'][1]} is no whole JPEG of 32 x "):
        list(TorchFeed(tmp_path / "jpg.beton", img_size=SIZE, batch_size=8, threads=1).batches(selection))


@pytest.mark.slow
def test_torch_workers_give_the_bits_of_one_process_and_survive_an_early_exit(tmp_path):
    data = replace(SMALL, loader="torch")
    dataset = prepare(data, tmp_path)
    recipe = RecipeSpec(auto_augment="3a", color_jitter=0.4)
    alone = joined(train_loader(data, dataset, recipe=recipe).epoch(0))[0]
    several = train_loader(data, dataset, recipe=recipe)
    several._feed = TorchFeed(dataset.train, img_size=SIZE, batch_size=16, threads=2)  # as on a GPU; on a CPU a rank decodes with one thread
    next(several.epoch(5))
    assert torch.equal(joined(several.epoch(0))[0], alone)
