"""What only FFCV does: threads, its ring, and failures in its pipeline."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.data.augment import eval_boxes
from jobs.data.beton import DataError, encoded, read_index
from jobs.data.ffcv_loader import FfcvFeed
from jobs.data.loaders import selected
from jobs.data.shards import write_beton
from jobs.experiment.specs import DataSpec
from tests.support.waiting import PATIENCE_S

ROOT = Path(__file__).parents[3]
SIZE = 16


@pytest.fixture(scope="module")
def beton(tmp_path_factory):
    def image(sample):
        generator = np.random.default_rng(sample)
        return np.kron(generator.integers(0, 256, (6, 5, 3)), np.ones((8, 8, 1))).astype(np.uint8)

    path = tmp_path_factory.mktemp("ffcv") / "jpg.beton"
    write_beton(path, lambda sample: encoded(image(sample), sample % 2 == 0), np.arange(40) % 4)
    return path


def selection_of(path):
    index = read_index(path)
    return selected(index, np.arange(len(index)), eval_boxes(DataSpec(), SIZE, index["height"], index["width"]))


def decoded(path, threads=1):
    return np.concatenate([batch.copy() for batch in FfcvFeed(path, img_size=SIZE, batch_size=8, threads=threads).batches(selection_of(path))])


def test_two_threads_give_the_bits_of_one(beton):
    assert (decoded(beton, threads=1) == decoded(beton, threads=2)).all()


def test_more_threads_than_cores_are_cut_to_the_cores(beton):
    assert (decoded(beton, threads=1) == decoded(beton, threads=500)).all()


def test_torchs_number_of_threads_is_left_alone(beton):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        feed = FfcvFeed(beton, img_size=SIZE, batch_size=8, threads=2)
        assert [torch.get_num_threads() for _ in feed.batches(selection_of(beton))] == [3] * 5
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("part", ["head", "middle"])
def test_a_damaged_jpeg_ends_the_epoch_by_name_and_leaves_no_thread(beton, tmp_path, part, threads):
    content, row = bytearray(beton.read_bytes()), read_index(beton)[20]
    first = int(row["ptr"] + (0 if part == "head" else row["size"] // 2))
    content[first : first + 40] = bytes(40)
    (tmp_path / "damaged.beton").write_bytes(content)
    before = set(threading.enumerate())
    with pytest.raises(DataError, match=f"damaged.beton: FFCV's pipeline failed: damaged: the image at byte {row['ptr']} is no whole"):
        decoded(tmp_path / "damaged.beton", threads)
    assert set(threading.enumerate()) <= before


def test_a_truncated_file_is_refused_before_ffcv_opens_it(beton, tmp_path):
    (tmp_path / "cut.beton").write_bytes(beton.read_bytes()[:-30])
    with pytest.raises(DataError, match="cut.beton: truncated"):
        FfcvFeed(tmp_path / "cut.beton", img_size=SIZE, batch_size=8, threads=1)


def test_an_epoch_that_is_left_decodes_no_further(beton, monkeypatch):
    decoded_batches = []
    monkeypatch.setattr("jobs.data.ffcv_loader.fill_augmented", lambda *arguments: decoded_batches.append(1))
    epoch = FfcvFeed(beton, img_size=SIZE, batch_size=1, threads=1).batches(np.repeat(selection_of(beton), 50))
    next(epoch)
    epoch.close()
    assert len(decoded_batches) <= 8  # of 2,000: what was on its way


def test_other_fields_of_a_file_are_not_decoded(beton):
    feed = FfcvFeed(beton, img_size=SIZE, batch_size=8, threads=1)
    assert list(feed._loader.pipeline_specs) == ["image"]


def run(code, **environment):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=True).stdout


TWO_LOADERS = """
from pathlib import Path
import torch
torch.set_num_threads(2)
import tests.jobs.data.test_ffcv_loader as test
path = Path({path!r})
selection = test.selection_of(path)
first, second = (test.FfcvFeed(path, img_size=test.SIZE, batch_size=2, threads=2) for _ in range(2))
alone = [batch.copy() for batch in first.batches(selection)]
for mine, theirs, batch in zip(first.batches(selection), second.batches(selection), alone, strict=True):
    assert (mine == batch).all() and (theirs == batch).all()
    assert torch.get_num_threads() == 2
print("equal")
"""


@pytest.mark.slow
def test_two_live_loaders_agree_and_leave_torchs_threads_alone(beton):
    assert run(TWO_LOADERS.format(path=str(beton))) == "equal\n"
