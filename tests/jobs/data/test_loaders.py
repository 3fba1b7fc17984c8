"""Batches through both loaders: what each rank gets, again and again, and what is refused."""

import io
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from jobs.data import loaders
from jobs.data.augment import held_out
from jobs.data.beton import DataError, encoded, read_index
from jobs.data.decoding import library
from jobs.data.loaders import channels_of
from jobs.data.prepare import prepare
from jobs.data.shards import write_beton
from jobs.experiment.sources import SOURCES
from jobs.experiment.specs import DataSpec
from models.torchvision_shim import load_timm
from tests.support.images import SMALL, eval_loader, joined, pixels, stored, train_loader, write_cifar, write_folder

LOADERS = pytest.mark.parametrize("loader", ["ffcv", "torch"])


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


# what a loader gives


@LOADERS
def test_batches_are_normalised_floats_and_integer_labels_that_stay(cache, loader):
    data = replace(SMALL, loader=loader)
    dataset = prepare(data, cache)
    assert (dataset.classes, dataset.img_size, dataset.train_samples, dataset.val_samples, dataset.test_samples) == (4, 16, 86, 10, 24)
    batches = list(train_loader(data, dataset).epoch(0))
    copies = [images.clone() for images, _ in train_loader(data, dataset).epoch(0)]
    assert len(batches) == 86 // 16
    assert all(images.shape == (16, 3, 16, 16) and images.dtype == torch.float32 and images.is_contiguous() for images, _ in batches)
    assert all(labels.shape == (16,) and labels.dtype == torch.int64 for _, labels in batches)
    assert all(torch.equal(images, copy) for (images, _), copy in zip(batches, copies, strict=True))


@LOADERS
def test_without_augmentation_every_image_comes_as_it_is_stored(cache, loader):
    data = replace(SMALL, loader=loader, augment="none", flip=False)
    dataset = prepare(data, cache)
    images, labels = joined(eval_loader(data, dataset).batches())
    assert (pixels(data, images) == stored(dataset.test)).all()
    assert labels.tolist() == read_index(dataset.test)["label"].tolist()


@pytest.mark.parametrize(
    "settings", [{"augment": "none", "flip": False}, {"augment": "none"}, {"augment": "shift", "shift_px": 15}, {"augment": "crop"}]
)
def test_both_loaders_give_equal_tensors(cache, settings):
    data = replace(SMALL, **settings)
    dataset = prepare(data, cache)
    ffcv, torch_ = (joined(train_loader(replace(data, loader=loader), dataset).epoch(2)) for loader in ("ffcv", "torch"))
    assert torch.equal(ffcv[1], torch_[1])
    assert torch.equal(ffcv[0], torch_[0])


@LOADERS
def test_a_shift_pads_with_zeros_and_a_flip_mirrors(cache, loader):
    data = replace(SMALL, loader=loader, shift_px=4)
    dataset = prepare(data, cache)
    shown, _ = joined(train_loader(data, dataset).epoch(0))
    padded = np.pad(stored(dataset.train), ((0, 0), (4, 4), (4, 4), (0, 0)))
    variants = {
        padded[sample, y : y + 16, x : x + 16][:, ::step].tobytes(): sample
        for sample in range(len(padded))
        for y in range(9)
        for x in range(9)
        for step in (1, -1)
    }
    samples = [variants[image.tobytes()] for image in pixels(data, shown)]
    assert len(set(samples)) == len(samples) == 80


@LOADERS
def test_an_epoch_holds_no_image_of_the_validation_split(cache, loader):
    data = replace(SMALL, loader=loader, augment="none", flip=False)
    dataset = prepare(data, cache)
    train, val = (
        {image.tobytes() for image in pixels(data, joined(batches)[0])}
        for batches in (train_loader(data, dataset, batch_size=43, micro=43).epoch(0), eval_loader(data, dataset, "val").batches())
    )
    assert (len(train), len(val), len(train & val)) == (86, 10, 0)
    assert train | val == {image.tobytes() for image in stored(dataset.train)}
    again, _ = joined(eval_loader(data, dataset, "train").batches())
    assert {image.tobytes() for image in pixels(data, again)} == train


# determinism


@LOADERS
def test_an_epoch_replays_bit_for_bit_and_differs_between_epochs_and_seeds(cache, loader):
    data = replace(SMALL, loader=loader, augment="crop")
    dataset = prepare(data, cache)
    first = train_loader(data, dataset)
    list(first.epoch(0))
    later, fresh = joined(first.epoch(1)), joined(train_loader(data, dataset).epoch(1))
    assert torch.equal(later[0], fresh[0]) and torch.equal(later[1], fresh[1])
    assert not torch.equal(later[0], joined(first.epoch(2))[0])
    assert not torch.equal(later[0], joined(train_loader(data, dataset, seed=1).epoch(1))[0])


@LOADERS
@pytest.mark.parametrize("first_step", [1, 3, 5])
def test_resuming_in_mid_epoch_gives_the_tail(cache, loader, first_step):
    data = replace(SMALL, loader=loader)
    loader = train_loader(data, prepare(data, cache), micro=8)
    whole, tail = list(loader.epoch(4)), list(loader.epoch(4, first_step))
    assert len(tail) == 2 * (5 - first_step)
    for (images, labels), (other_images, other_labels) in zip(whole[2 * first_step :], tail, strict=True):
        assert torch.equal(images, other_images) and torch.equal(labels, other_labels)


@LOADERS
@pytest.mark.parametrize(("world", "micro"), [(2, 8), (2, 4), (1, 4), (4, 2)])
def test_a_step_takes_the_same_images_for_any_ranks_and_micro_batches(cache, loader, world, micro):
    data = replace(SMALL, loader=loader)
    dataset = prepare(data, cache)
    alone, _ = joined(train_loader(data, dataset).epoch(1))
    ranks = [list(train_loader(data, dataset, micro=micro, rank=rank, world=world).epoch(1)) for rank in range(world)]
    together = torch.cat([batches[number][0] for number in range(len(ranks[0])) for batches in ranks])
    assert torch.equal(alone, together)


@LOADERS
@pytest.mark.parametrize("world", [1, 2, 3, 30])
def test_evaluation_gives_each_image_to_one_rank_once(cache, loader, world):
    data = replace(SMALL, loader=loader)
    dataset = prepare(data, cache)
    loaders = [eval_loader(data, dataset, rank=rank, world=world, batch_size=5) for rank in range(world)]
    counts = [[len(labels) for _, labels in loader.batches()] for loader in loaders]
    seen = [image.tobytes() for loader in loaders for images, _ in loader.batches() for image in pixels(data, images)]
    assert sorted(seen) == sorted(image.tobytes() for image in stored(dataset.test))
    assert max(map(len, counts)) == loaders[0].batches_of_longest_rank
    assert all(count == 5 for rank in counts for count in rank[:-1])


def test_evaluation_in_the_middle_of_an_epoch_disturbs_neither(cache):
    dataset = prepare(SMALL, cache)
    train, test = train_loader(SMALL, dataset, threads=2), eval_loader(SMALL, dataset, threads=2)
    expected = joined(train.epoch(0))[0], joined(test.batches())[0]
    mixed = []
    for images, _ in train.epoch(0):
        mixed.append(images)
        assert torch.equal(joined(test.batches())[0], expected[1])
    assert torch.equal(torch.cat(mixed), expected[0])


@LOADERS
def test_leaving_an_epoch_early_leaves_no_thread_and_the_next_one_is_whole(cache, loader):
    data = replace(SMALL, loader=loader)
    loader = train_loader(data, prepare(data, cache), batch_size=4, micro=4)
    whole = joined(loader.epoch(0))[0]
    before = threading.active_count()
    for _ in range(3):
        epoch = loader.epoch(0)
        next(epoch)
        epoch.close()
        assert threading.active_count() == before
    assert torch.equal(joined(loader.epoch(0))[0], whole)


# real formats, prepared and loaded


@LOADERS
def test_cifar_reaches_the_network_as_its_files_say(tmp_path, loader):
    images, labels = write_cifar(tmp_path)
    data = DataSpec(source="cifar10", path=str(tmp_path), loader=loader, val_fraction=0.1)
    dataset = prepare(data, tmp_path / "cache")
    assert (dataset.train_samples, dataset.val_samples, dataset.test_samples, dataset.classes) == (90, 10, 20, 10)
    kept_apart = held_out(labels, 0.1, 0)
    for split, chosen in (("train", ~kept_apart), ("val", kept_apart)):
        shown, classes = joined(eval_loader(data, dataset, split).batches())
        assert (pixels(data, shown) == images[chosen].transpose(0, 2, 3, 1)).all() and classes.tolist() == labels[chosen].tolist()


@LOADERS
@pytest.mark.parametrize("write_mode", ["raw", "jpg"])
def test_large_images_of_folders_are_cropped_to_the_networks_size(tmp_path, loader, write_mode):
    for part in ("train", "val"):
        write_folder(tmp_path / part, count=4, size=(80, 60))
    data = DataSpec(
        source="imagefolder",
        path=str(tmp_path),
        loader=loader,
        img_size=24,
        augment="crop",
        write_mode=write_mode,
        max_resolution=64,
        val_fraction=0.25,
    )
    dataset = prepare(data, tmp_path / "cache")
    index = read_index(dataset.train)
    assert set(index["width"]) == {64} and set(index["height"]) == {48} and (index["mode"] == (write_mode == "raw")).all()
    images, labels = joined(train_loader(data, dataset, batch_size=6, micro=3).epoch(0))
    assert images.shape == (6, 3, 24, 24) and sorted(labels.tolist()) == [0, 0, 0, 1, 1, 1]
    assert [len(labels) for _, labels in eval_loader(data, dataset).batches()] == [8]


@pytest.mark.parametrize("write_mode", ["raw", "jpg"])
def test_both_loaders_see_the_same_in_compressed_images(tmp_path, write_mode):
    for part in ("train", "val"):
        write_folder(tmp_path / part, count=4, size=(80, 60))
    data = DataSpec(source="imagefolder", path=str(tmp_path), img_size=24, write_mode=write_mode)
    dataset = prepare(data, tmp_path / "cache")
    ffcv, torch_ = (pixels(data, joined(eval_loader(replace(data, loader=loader), dataset).batches())[0]).astype(int) for loader in ("ffcv", "torch"))
    assert (ffcv == torch_).all()


def test_scaled_decoding_changes_training_a_little_evaluation_not_at_all_and_both_loaders_agree(tmp_path):
    for part in ("train", "val"):
        write_folder(tmp_path / part, count=8, size=(160, 150), suffix=".jpg")
    data = DataSpec(source="imagefolder", path=str(tmp_path), img_size=24, write_mode="jpg", augment="crop", interpolation="bilinear")
    dataset = prepare(data, tmp_path / "cache")
    full, scaled, torch_ = data, replace(data, decode="scaled"), replace(data, decode="scaled", loader="torch")
    seen = [pixels(data, joined(train_loader(spec, dataset, batch_size=8, micro=8).epoch(0))[0]).astype(int) for spec in (full, scaled, torch_)]
    assert 0 < np.abs(seen[0] - seen[1]).mean() < 8 or library() is None
    assert (seen[1] == seen[2]).all()
    assert torch.equal(*(joined(eval_loader(spec, dataset).batches())[0] for spec in (full, scaled)))


@LOADERS
def test_a_ready_beton_is_used_where_it_lies(tmp_path, loader):
    def image(sample):
        return np.random.default_rng(sample).integers(0, 256, (40, 40, 3), dtype=np.uint8)

    for name, count in (("train", 30), ("test", 10)):
        write_beton(tmp_path / f"{name}.beton", lambda sample: encoded(image(sample), False), np.arange(count) % 3)
    data = DataSpec(source="beton", path=str(tmp_path / "train.beton"), test_path=str(tmp_path / "test.beton"), img_size=40, loader=loader)
    dataset = prepare(data, tmp_path / "cache")
    assert dataset.train == tmp_path / "train.beton" and (dataset.classes, dataset.train_samples, dataset.test_samples) == (3, 27, 10)
    assert (pixels(data, joined(eval_loader(data, dataset).batches())[0]) == np.stack([image(sample) for sample in range(10)])).all()


# what is refused


def test_batches_that_cannot_be_made_are_refused_with_the_numbers(cache):
    dataset = prepare(SMALL, cache)
    with pytest.raises(DataError, match="86 training images do not fill one batch of 87"):
        train_loader(SMALL, dataset, batch_size=87, micro=87)
    with pytest.raises(DataError, match="batch_size 16 cannot be divided by 2 ranks x micro_batch_size 5; use a multiple of 10"):
        train_loader(SMALL, dataset, micro=5, world=2)
    data = replace(SMALL, val_fraction=0.001)  # of 96 images less than half of one
    with pytest.raises(DataError, match="the val split is empty: data.val_fraction is 0.001"):
        eval_loader(data, dataset, "val")


# channels and epochs


@pytest.mark.parametrize(("cores", "device", "threads"), [(8, "cuda:1", 7), (1, "cuda", 1), (8, "cpu", 1), (8, torch.device("cuda", 0), 7)])
def test_decoding_leaves_the_cores_that_the_network_needs(cores, device, threads):
    assert loaders.decoding_threads(cores, device) == threads


@LOADERS
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_evaluation_of_jpegs_gives_the_pixels_of_timm(tmp_path, loader, interpolation):
    load_timm()
    from timm.data import create_transform

    write_folder(tmp_path / "train", count=2, size=(40, 50))
    write_folder(tmp_path / "val", count=3, size=(90, 61), suffix=".jpg")
    data = DataSpec(source="imagefolder", path=str(tmp_path), loader=loader, img_size=32, write_mode="jpg", val_fraction=0.5)
    data = replace(data, interpolation=interpolation, eval_crop=0.9)
    dataset = prepare(data, tmp_path / "cache")
    content, transform = dataset.test.read_bytes(), create_transform(32, interpolation=interpolation, crop_pct=0.9, mean=(0, 0, 0), std=(1, 1, 1))
    files = [io.BytesIO(content[row["ptr"] : row["ptr"] + row["size"]]) for row in read_index(dataset.test)]
    expected = np.stack([(transform(Image.open(file)) * 255).round().permute(1, 2, 0).numpy() for file in files])
    shown = pixels(data, joined(eval_loader(data, dataset).batches())[0])
    assert np.abs(shown - expected).max() <= (1 if library() else 3)


def test_the_channels_of_every_source_are_the_published_ones() -> None:
    imagenet = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # torchvision's
    assert {source: channels_of(DataSpec(source=source)) for source in SOURCES} == {
        "digits": ((0.313,) * 3, (0.357,) * 3),
        "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
        "synthetic": ((0.5,) * 3, (0.139,) * 3),
        "imagefolder": imagenet,
        "huggingface": imagenet,
        "webdataset": imagenet,
        "beton": imagenet,
    }


@pytest.mark.parametrize("source", ["digits", "synthetic"])
def test_the_channels_of_sources_that_need_no_files_are_those_of_their_training_images(tmp_path, source):
    images = stored(prepare(DataSpec(source=source, loader="torch"), tmp_path).train) / 255
    mean, std = channels_of(DataSpec(source=source))
    assert mean == pytest.approx(tuple(images.mean((0, 1, 2))), abs=1e-3)
    assert std == pytest.approx(tuple(images.std((0, 1, 2))), abs=1e-3)


@LOADERS
def test_training_images_of_digits_reach_the_network_with_mean_0_and_deviation_1(tmp_path, loader):
    data = DataSpec(source="digits", loader=loader)
    images, _ = joined(train_loader(data, prepare(data, tmp_path)).epoch(0))
    assert abs(float(images.mean())) < 0.02 and abs(float(images.std()) - 1) < 0.02


def flips(data, dataset, epoch, seed=0):
    """Whether each training image of an epoch is mirrored, by its position in the file."""
    whole = {image.tobytes(): number for number, image in enumerate(stored(dataset.train))}
    images = pixels(data, joined(train_loader(data, dataset, seed=seed).epoch(epoch))[0])
    seen = {}
    for image in images:
        mirrored = image.tobytes() not in whole
        seen[whole[image[:, ::-1].tobytes() if mirrored else image.tobytes()]] = mirrored
    return seen


@LOADERS
def test_an_image_is_drawn_anew_in_every_epoch_and_for_every_seed(cache, loader):
    data = replace(SMALL, loader=loader, augment="none")
    dataset = prepare(data, cache)
    first, *others = flips(data, dataset, 0), flips(data, dataset, 1), flips(data, dataset, 7), flips(data, dataset, 0, seed=1)
    for other in others:
        both = first.keys() & other.keys()
        differing = sum(first[image] != other[image] for image in both)
        assert 0.2 * len(both) < differing < 0.8 * len(both)
    assert flips(data, dataset, 0) == first


@pytest.mark.parametrize("augment", ["shift", "crop"])
def test_the_box_of_an_image_is_drawn_anew_in_every_epoch(cache, augment, monkeypatch):
    data, boxes = replace(SMALL, loader="torch", augment=augment, flip=False), {}
    loader = train_loader(data, prepare(data, cache))
    select = loaders.selected

    def noted(index, samples, chosen, starts):
        boxes.setdefault(len(boxes), dict(zip(samples.tolist(), chosen.tolist(), strict=True)))
        return select(index, samples, chosen, starts)

    monkeypatch.setattr(loaders, "selected", noted)
    for epoch in (0, 1):
        joined(loader.epoch(epoch))
    both = boxes[0].keys() & boxes[1].keys()
    assert sum(boxes[0][image] != boxes[1][image] for image in both) > 0.8 * len(both)
