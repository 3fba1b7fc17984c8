"""Draws, orders, splits and boxes against loops over Python integers."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.data.augment import CROP, FLIP, REPEAT_BITS, SHIFT, eval_boxes, held_out, random_bits, repeated, shuffled, train_boxes, uniform
from jobs.experiment.augment_limits import images_of_epoch
from jobs.experiment.specs import DataSpec, RecipeSpec
from models.torchvision_shim import load_timm

WORD = 2**64


def splitmix64(state: int) -> int:
    state = (state + 0x9E3779B97F4A7C15) % WORD
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % WORD
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) % WORD
    return state ^ (state >> 31)


def bits(seed: int, epoch: int, sample: int, draw: int) -> int:
    key = splitmix64(splitmix64(splitmix64(seed % WORD) ^ (epoch % WORD)) ^ sample)
    return splitmix64((key + draw * 0x9E3779B97F4A7C15) % WORD)


def number(seed: int, epoch: int, sample: int, draw: int) -> float:
    return (bits(seed, epoch, sample, draw) >> 11) / 2**53


def sizes(count: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.integers(40, 300, count), generator.integers(40, 300, count)


def test_the_generator_is_splitmix64():
    assert splitmix64(0) == 0xE220A8397B1DCDAF  # first output for state 0 of the authors' C code
    assert splitmix64(0x9E3779B97F4A7C15) == 0x6E789E6AA1B965F4


@given(st.integers(-(2**63), 2**63), st.integers(-1, 10**6), st.integers(0, 2**40), st.integers(0, 60))
def test_bits_equal_those_of_python_integers(seed, epoch, sample, draw):
    assert int(random_bits(seed, epoch, np.array([sample]), draw)[0]) == bits(seed, epoch, sample, draw)


def test_uniform_numbers_fill_the_unit_interval_evenly():
    numbers = uniform(3, 5, np.arange(100_000), 2)
    counts = np.histogram(numbers, 20, (0, 1))[0]
    assert 0 <= numbers.min() and numbers.max() < 1
    assert abs(counts - 5000).max() < 5 * math.sqrt(5000)


def test_draws_of_neighbouring_seeds_epochs_samples_and_draws_are_uncorrelated():
    samples = np.arange(20_000)
    base = uniform(0, 0, samples, 0)
    for other in (uniform(1, 0, samples, 0), uniform(0, 1, samples, 0), uniform(0, 0, samples + 1, 0), uniform(0, 0, samples, 1)):
        assert abs(np.corrcoef(base, other)[0, 1]) < 5 / math.sqrt(len(samples))


def test_an_order_holds_every_sample_once_and_depends_on_seed_and_epoch():
    samples = np.arange(7, 1000, 3)
    orders = [tuple(shuffled(samples, seed, epoch)) for seed in range(3) for epoch in range(3)]
    assert all(sorted(order) == samples.tolist() for order in orders)
    assert len(set(orders)) == 9


def test_first_places_go_to_all_samples_alike():
    firsts = Counter(int(shuffled(np.arange(5), seed, 0)[0]) for seed in range(5000))
    assert all(abs(count - 1000) < 5 * math.sqrt(800) for count in firsts.values()) and len(firsts) == 5


@pytest.mark.parametrize(("images", "batch_size", "ranks", "repeats"), [(1000, 32, 4, 3), (96, 16, 2, 3), (520, 24, 1, 2), (257, 8, 2, 4)])
def test_repeats_have_the_counts_and_steps_of_timms_sampler(images: int, batch_size: int, ranks: int, repeats: int) -> None:
    load_timm()
    from timm.data.distributed_sampler import RepeatAugSampler

    samplers = [RepeatAugSampler(range(images), num_replicas=ranks, rank=rank, num_repeats=repeats) for rank in range(ranks)]
    steps = len(samplers[0]) // (batch_size // ranks)
    assert steps == images_of_epoch(RecipeSpec(repeated_augment=repeats), images) // batch_size
    theirs = Counter(sample for sampler in samplers for sample in list(sampler)[: steps * batch_size // ranks])
    samples, drawn_as = repeated(shuffled(np.arange(images), 3, 0), repeats, steps * batch_size, batch_size)
    assert sorted(Counter(samples.tolist()).values()) == sorted(theirs.values())
    assert len(set(drawn_as.tolist())) == len(samples) and (drawn_as % 2**REPEAT_BITS == samples).all()


@pytest.mark.parametrize("repeats", [2, 3, 4, 5])
def test_neighbours_in_a_batch_of_repeats_differ(repeats: int) -> None:
    for batch_size in range(2 * repeats, 6 * repeats + 2, 2):
        samples, _ = repeated(np.arange(1000), repeats, 20 * batch_size, batch_size)
        assert (samples[0::2] != samples[1::2]).all(), batch_size


def test_a_batch_of_repeats_holds_the_next_images_in_order() -> None:
    order = shuffled(np.arange(100), 0, 0)
    samples, drawn_as = repeated(order, 3, 24, 12)
    assert [sorted(samples[:12].tolist()), sorted(samples[12:].tolist())] == [sorted(order[:4].tolist() * 3), sorted(order[4:8].tolist() * 3)]
    assert (
        samples[:4].tolist() == samples[4:8].tolist() == order[:4].tolist()
        and (drawn_as[:4] == samples[:4]).all()
        and (drawn_as[4:8] != drawn_as[:4]).all()
    )
    assert all((part == order[:24]).all() for part in repeated(order, 1, 24, 12))


@settings(max_examples=60)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.floats(0, 0.9), st.integers(0, 3))
def test_a_split_is_in_proportion_and_leaves_every_class_in_training(labels, fraction, seed):
    labels = np.array(labels)
    held = held_out(labels, fraction, seed)
    for label in np.unique(labels):
        count, taken = (labels == label).sum(), held[labels == label].sum()
        assert taken < count
        assert abs(taken - count * fraction) < 1 or taken == count - 1


def test_a_split_has_the_size_that_was_asked_for_and_no_other_in_another_order():
    labels = np.arange(1003) % 10
    held = held_out(labels, 0.1, 0)
    assert held.sum() == 100 and not held_out(labels, 0.0, 0).any()
    assert (held != held_out(labels, 0.1, 1)).any()


def test_a_split_takes_from_each_class_the_samples_with_the_smallest_draws():
    labels = np.array([0, 1] * 20)
    held = held_out(labels, 0.25, 9)
    for label in (0, 1):
        members = [sample for sample in range(40) if labels[sample] == label]
        smallest = sorted(members, key=lambda sample: bits(9, -1, sample, 0))[:5]
        assert sorted(smallest) == [sample for sample in members if held[sample]]


def crop(data: DataSpec, height: int, width: int, draw) -> tuple[int, int, int, int]:
    """torchvision's RandomResizedCrop.get_params, one image, with the given numbers."""
    for attempt in range(10):
        area = height * width * (data.crop_scale[0] + (data.crop_scale[1] - data.crop_scale[0]) * draw(CROP + 4 * attempt))
        ratio = math.exp(math.log(3 / 4) + (math.log(4 / 3) - math.log(3 / 4)) * draw(CROP + 4 * attempt + 1))
        cols, rows = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < cols <= width and 0 < rows <= height:
            return int((height - rows + 1) * draw(CROP + 4 * attempt + 2)), int((width - cols + 1) * draw(CROP + 4 * attempt + 3)), rows, cols
    rows, cols = height, width
    if width / height < 3 / 4:
        rows = round(width / (3 / 4))
    elif width / height > 4 / 3:
        cols = round(height * (4 / 3))
    return (height - rows) // 2, (width - cols) // 2, rows, cols


def test_crops_equal_those_of_a_loop_also_where_ten_attempts_fail():
    data, samples = DataSpec(augment="crop", crop_scale=(0.3, 1.0)), np.arange(1000, 1400)
    heights, widths = sizes(400)
    heights[:100] //= 8  # long strips, on which attempts fail
    boxes = train_boxes(data, 32, heights, widths, samples, seed=4, epoch=7)
    expected = [crop(data, int(h), int(w), lambda draw, s=s: number(4, 7, int(s), draw)) for h, w, s in zip(heights, widths, samples, strict=True)]
    assert [tuple(box)[:4] for box in boxes.tolist()] == expected
    assert any(rows == h or cols == w for (_, _, rows, cols), h, w in zip(expected[:100], heights[:100], widths[:100], strict=True))


def test_crops_stay_inside_and_their_areas_are_uniform():
    count = 20_000
    data, side = DataSpec(augment="crop", crop_scale=(0.2, 0.6)), np.full(20_000, 200)
    boxes = train_boxes(data, 32, side, side, np.arange(count), seed=0, epoch=0)
    share = boxes["rows"] * boxes["cols"] / 200**2
    assert (boxes["top"] >= 0).all() and (boxes["top"] + boxes["rows"] <= 200).all() and (boxes["left"] + boxes["cols"] <= 200).all()
    assert 0.19 < share.min() and share.max() < 0.61
    assert abs(share.mean() - 0.4) < 5 * 0.4 / math.sqrt(12 * count)


def test_shifts_reach_every_offset_alike_and_keep_the_size():
    data, count = DataSpec(augment="shift", shift_px=2), 25_000
    side = np.full(count, 32)
    boxes = train_boxes(data, 32, side, side, np.arange(count), seed=1, epoch=0)
    offsets = Counter(zip(boxes["top"].tolist(), boxes["left"].tolist(), strict=True))
    assert set(offsets) == {(y, x) for y in range(-2, 3) for x in range(-2, 3)}
    assert all(abs(seen - 1000) < 5 * math.sqrt(1000) for seen in offsets.values())
    assert set(boxes["rows"]) == set(boxes["cols"]) == {32}
    assert boxes["top"][17] == int(number(1, 0, 17, SHIFT) * 5) - 2


def test_half_of_the_images_are_flipped_and_none_without_flip():
    side, samples = np.full(10_000, 32), np.arange(10_000)
    flips = train_boxes(DataSpec(flip=True), 32, side, side, samples, seed=2, epoch=1)["flip"]
    assert abs(flips.sum() - 5000) < 5 * 50
    assert [bool(flip) for flip in flips[:50]] == [number(2, 1, sample, FLIP) < 0.5 for sample in range(50)]
    assert not train_boxes(DataSpec(), 32, side, side, samples, seed=2, epoch=1)["flip"].any()


def test_a_box_depends_on_its_own_sample_alone():
    data = DataSpec(augment="crop", flip=True)
    heights, widths = sizes(200)
    whole = train_boxes(data, 32, heights, widths, np.arange(200), seed=0, epoch=3)
    some = np.array([150, 3, 77])
    assert (train_boxes(data, 32, heights[some], widths[some], some, seed=0, epoch=3) == whole[some]).all()


def test_evaluation_keeps_the_central_share_and_all_of_an_image_that_fits():
    boxes = eval_boxes(DataSpec(eval_crop=0.875), 32, np.array([256, 32, 32, 300]), np.array([320, 32, 48, 200]))
    assert boxes.tolist() == [(16, 48, 224, 224, 0, 0), (0, 0, 32, 32, 0, 0), (0, 8, 32, 32, 0, 0), (62, 12, 175, 175, 0, 0)]
