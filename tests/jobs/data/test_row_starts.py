"""Row starts: the same pixels with them as without, and no use of a file that is torn, damaged or of another .beton."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jobs.data import decoding, row_starts, shards
from jobs.data.augment import train_boxes
from jobs.data.beton import Encoded, encoded, read_index
from jobs.data.decoding import SELECTION, START, fill
from jobs.data.loaders import selected
from jobs.data.local_copy import copied
from jobs.data.prepare import Dataset
from jobs.data.row_starts import mapped_starts, starts_file, starts_of
from jobs.data.shards import write_beton
from jobs.experiment.specs import DataSpec
from tests.jobs.data.test_decoding import BUILT, FORMS, jpeg, natural

pytestmark = BUILT
WITH_STARTS = [form for form in FORMS if form not in ("progressive", "restarts")]
COUNT = 12
SIDES = (np.arange(COUNT) * 17 % 90 + 40).tolist()


def image(sample: int) -> Encoded:
    """JPEGs of all forms, and a raw image."""
    pixels, forms = natural(SIDES[sample], 200 - SIDES[sample], sample), list(FORMS.values())
    if sample == COUNT - 1:
        return encoded(pixels, jpg=False)
    return replace(encoded(pixels, jpg=True), content=jpeg(pixels, **forms[sample % len(forms)]))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .beton with row starts."""
    path = tmp_path_factory.mktemp("starts") / "train.beton"
    write_beton(path, image, np.arange(COUNT) % 2)
    return path


@pytest.mark.parametrize("form", FORMS)
def test_every_box_of_a_jpeg_is_the_same_with_row_starts(form: str) -> None:
    height, width = 83, 121
    content = jpeg(natural(height, width), **FORMS[form])
    starts = decoding.row_starts(content)
    assert len(starts) == (-(-height // (16 if form not in ("4:4:4", "4:2:2") else 8)) if form in WITH_STARTS else 0)
    file = np.frombuffer(bytes(8) + np.uint32(len(starts)).tobytes() + starts.tobytes(), np.uint8)
    draw, rows = np.random.default_rng(1), np.zeros(60, SELECTION)
    rows["size"], rows["height"], rows["width"] = content.size, height, width
    rows["rows"], rows["cols"] = draw.integers(1, height + 1, 60), draw.integers(1, width + 1, 60)
    rows["top"], rows["left"] = draw.integers(0, height + 1 - rows["rows"]), draw.integers(0, width + 1 - rows["cols"])
    rows["rows"][:3], rows["cols"][:3], rows["top"][:3], rows["left"][:3], rows["whole"][0] = height, width, 0, 0, 1
    for scaled in (False, True):
        for interpolation in decoding.FILTERS:
            plain, jumped = np.empty((2, 60, 16, 16, 3), np.uint8)
            rows["starts"] = 0
            fill(content, rows, plain, interpolation, 1, scaled)
            rows["starts"] = 8 if len(starts) else 0
            fill(content, rows, jumped, interpolation, 1, scaled, file)
            assert (plain == jumped).all()


def test_codes_outside_of_a_box_are_not_read() -> None:
    """The bytes of other rows are destroyed: only a decoder that jumps over them gives the box."""
    content = jpeg(natural(96, 128), subsampling=2).copy()
    starts = decoding.row_starts(content)
    file = np.frombuffer(bytes(8) + np.uint32(len(starts)).tobytes() + starts.tobytes(), np.uint8)
    rows = np.zeros(1, SELECTION)
    rows["size"], rows["height"], rows["width"], rows["top"], rows["rows"], rows["cols"] = content.size, 96, 128, 52, 20, 128
    whole, jumped = np.empty((2, 1, 20, 20, 3), np.uint8)
    fill(content, rows, whole, "area", 1)
    first, last = (int(starts["bit"][row]) // 8 for row in (0, 2))  # the box is in rows 3 and 4 of MCUs, its edges in 2 and 5
    content[first + 4 : last - 4] = 0xA5
    fill(content, rows, jumped, "area", 1)  # what stands there now are codes of something else
    assert (whole != jumped).any()
    rows["starts"] = 8
    fill(content, rows, jumped, "area", 1, False, file)
    assert (whole == jumped).all()


def test_starts_of_another_jpeg_are_not_used() -> None:
    content, other = jpeg(natural(64, 64)), jpeg(natural(64, 64, 1), optimize=True)
    starts = decoding.row_starts(other)
    file = np.frombuffer(bytes(8) + np.uint32(len(starts)).tobytes() + starts.tobytes(), np.uint8)
    rows = np.zeros(1, SELECTION)
    rows["size"], rows["height"], rows["width"], rows["rows"], rows["cols"] = content.size, 64, 64, 64, 64
    plain, given = np.empty((2, 1, 16, 16, 3), np.uint8)
    fill(content, rows, plain, "area", 1)
    rows["starts"] = 8
    fill(content, rows, given, "area", 1, False, file)
    assert (plain == given).all()


@pytest.mark.parametrize("damage", [lambda content: content[: len(content) // 2], lambda content: content[:100], lambda content: content[:0]])
def test_a_damaged_jpeg_has_no_row_starts(damage: object) -> None:
    content = damage(jpeg(natural(64, 64)))  # type: ignore[operator]
    assert decoding.row_starts(np.append(content, np.uint8(0))[: len(content)]).size == 0


def test_the_loaders_give_the_same_images_with_the_file_as_without(written: Path) -> None:
    from jobs.data.torch_loader import TorchFeed

    index = read_index(written)
    places = starts_of(written, index)
    forms = list(FORMS)
    assert [place > 0 for place in places] == [sample < COUNT - 1 and forms[sample % len(forms)] in WITH_STARTS for sample in range(COUNT)]
    boxes = train_boxes(DataSpec(augment="crop"), 32, index["height"], index["width"], np.arange(COUNT), seed=0, epoch=0)
    feed = TorchFeed(written, img_size=32, batch_size=COUNT, threads=1)
    with_starts, without = (next(feed.batches(selected(index, np.arange(COUNT), boxes, some))).copy() for some in (places, None))
    assert (with_starts == without).all()


def flipped_bit(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content[:20],
        lambda content: b"",
        lambda content: flipped_bit(content, 0),
        lambda content: flipped_bit(content, 60),
        lambda content: flipped_bit(content, len(content) - 3),
    ],
    ids=["torn", "torn header", "empty", "another kind of file", "a changed start", "a changed table"],
)
def test_a_damaged_file_is_not_used(written: Path, damage: object, tmp_path: Path) -> None:
    path = tmp_path / "train.beton"
    path.write_bytes(written.read_bytes())
    starts_file(path).write_bytes(starts_file(written).read_bytes())
    assert starts_of(path, read_index(path)).any()
    starts_file(path).write_bytes(damage(starts_file(written).read_bytes()))  # type: ignore[operator]
    assert not starts_of(path, read_index(path)).any()


def test_the_file_of_another_beton_is_not_used(written: Path, tmp_path: Path) -> None:
    path = tmp_path / "train.beton"
    write_beton(path, lambda sample: image(COUNT - 1 - sample), np.arange(COUNT) % 2)
    assert starts_of(path, read_index(path)).any()
    starts_file(path).write_bytes(starts_file(written).read_bytes())
    assert not starts_of(path, read_index(path)).any()
    write_beton(path, lambda sample: image(COUNT - 1), np.arange(3) % 2)
    assert not starts_file(path).exists() and mapped_starts(path) is None, "raw images need none, and the old file went"


def test_shards_of_any_size_leave_the_same_file(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SAMPLES", 5)
    write_beton(tmp_path / "train.beton", image, np.arange(COUNT) % 2)
    assert starts_file(tmp_path / "train.beton").read_bytes() == starts_file(written).read_bytes()


def test_shards_of_an_older_version_are_assembled_without(tmp_path: Path) -> None:
    shard = shards.shards_of(tmp_path, "train", COUNT)[0]
    shards.write_shard(shard, image)
    shard.path("starts").unlink()
    shards.assemble([shard], np.arange(COUNT) % 2)
    path = shards.assembled_path(tmp_path, "train")
    assert not starts_file(path).exists() and len(read_index(path)) == COUNT


def test_a_local_copy_has_them_too(written: Path, tmp_path: Path) -> None:
    dataset = Dataset(classes=2, img_size=32, train=written, test=written, train_samples=9, val_samples=3, test_samples=3, sha256="ab" * 32)
    local = copied(dataset, tmp_path)
    assert starts_of(local.train, read_index(local.train)).any()


def test_start_is_what_the_library_writes() -> None:
    assert START.itemsize == 10
    assert row_starts.HEADER.itemsize == 40
