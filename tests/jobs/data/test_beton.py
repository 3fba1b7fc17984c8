"""Files written here are FFCV's to the byte, and a damaged one is refused by name."""

import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.data.beton import ALLOCATION, FIELD, HEADER, PAGE_BYTES, DataError, encoded, read_index, sha256_file, write_sha256
from jobs.data.shards import write_beton
from tests.support.processes import run_ranks

COUNT = 40


def image(sample: int) -> np.ndarray:
    generator = np.random.default_rng(sample)
    return np.kron(generator.integers(0, 256, (generator.integers(3, 9), generator.integers(3, 9), 3)), np.ones((8, 8, 1))).astype(np.uint8)


def write(path, jpg=False, count=COUNT):
    write_beton(path, lambda sample: encoded(image(sample), jpg), np.arange(count) % 7)
    return path


@pytest.fixture(scope="module")
def beton(tmp_path_factory):
    return write(tmp_path_factory.mktemp("beton") / "good.beton")


WRITTEN = (("raw", 3000), ("jpg", COUNT))  # 3,000 raw images take more than one page


def write_with_ffcv(folder: Path) -> None:
    """Run in a process of its own: FFCV's writer forks others."""
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    for mode, count in WRITTEN:
        samples = [(image(sample), sample % 7) for sample in range(count)]
        fields = {"image": RGBImageField(write_mode=mode), "label": IntField()}
        DatasetWriter(str(folder / f"{mode}.beton"), fields, num_workers=1).from_indexed_dataset(samples)


@pytest.mark.slow
def test_the_bytes_are_those_of_ffcvs_own_writer(tmp_path):
    run_ranks("tests.jobs.data.test_beton:write_with_ffcv", 1, tmp_path)
    for mode, count in WRITTEN:
        ours = write(tmp_path / "ours.beton", jpg=mode == "jpg", count=count)
        assert ours.read_bytes() == (tmp_path / f"{mode}.beton").read_bytes(), mode
        assert mode == "jpg" or ours.stat().st_size > 3 * PAGE_BYTES


def test_the_index_finds_every_image_and_label(beton):
    content, index = beton.read_bytes(), read_index(beton)
    for sample, row in enumerate(index):
        pixels = np.frombuffer(content, np.uint8, row["size"], row["ptr"]).reshape(row["height"], row["width"], 3)
        assert (pixels == image(sample)).all()
    assert index["label"].tolist() == [sample % 7 for sample in range(COUNT)]


@pytest.mark.parametrize("kept", [0, 1, HEADER.itemsize, 500, HEADER.itemsize + 2 * FIELD.itemsize + 30, PAGE_BYTES, -ALLOCATION.itemsize, -1])
def test_a_truncated_file_is_refused_by_name(beton, tmp_path, kept):
    path = tmp_path / "cut.beton"
    path.write_bytes(beton.read_bytes()[:kept])
    with pytest.raises(DataError, match="cut.beton: (truncated|damaged|not a .beton)"):
        read_index(path)


@pytest.mark.parametrize("content", [b"", b"not a beton\n" * 1000, bytes(100_000), np.random.default_rng(0).bytes(100_000)])
def test_a_foreign_file_is_refused_by_name(tmp_path, content):
    path = tmp_path / "foreign.beton"
    path.write_bytes(content)
    with pytest.raises(DataError, match="foreign.beton: (truncated or )?not a .beton"):
        read_index(path)


def test_a_missing_file_and_a_folder_are_refused_by_name(tmp_path):
    with pytest.raises(DataError, match="none.beton: No such file"):
        read_index(tmp_path / "none.beton")
    with pytest.raises(DataError, match=tmp_path.name):
        read_index(tmp_path)


def test_a_file_without_the_two_fields_is_refused_by_what_it_has(beton, tmp_path):
    content = bytearray(beton.read_bytes())
    content[HEADER.itemsize + FIELD.itemsize] = 0  # the label's type becomes float
    (tmp_path / "float.beton").write_bytes(content)
    with pytest.raises(DataError, match="no field 'label' of type IntField"):
        read_index(tmp_path / "float.beton")
    (tmp_path / "named.beton").write_bytes(beton.read_bytes().replace(b"image\0", b"photo\0", 1))
    with pytest.raises(DataError, match=r"no field 'image' of type RGBImageField; its fields are \['photo', 'label'\]"):
        read_index(tmp_path / "named.beton")


@pytest.fixture(scope="module")
def damaged(beton):
    return Path(shutil.copy(beton, beton.with_name("damaged.beton")))


@contextmanager
def changed(path, changes):
    """Writes single bytes into a file, and the old ones back."""
    with path.open("r+b", buffering=0) as file:
        old = []
        for place, value in changes:
            file.seek(place)
            old.append((place, file.read(1)))
            file.seek(place)
            file.write(bytes([value]))
        try:
            yield
        finally:
            for place, value in reversed(old):
                file.seek(place)
                file.write(value)


@settings(max_examples=300)
@given(data=st.data())
def test_whatever_bytes_change_the_index_stays_inside_of_the_file_or_is_refused(damaged, data):
    size = damaged.stat().st_size
    start, table = HEADER.itemsize + 2 * FIELD.itemsize, size - COUNT * ALLOCATION.itemsize
    places = st.one_of(st.integers(0, HEADER.itemsize - 1), st.integers(start, start + 24 * COUNT - 1), st.integers(table, size - 1))
    changes = data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=4))
    try:
        with changed(damaged, changes):
            index = read_index(damaged)
    except DataError as error:
        assert "damaged.beton" in str(error)
        return
    assert (index["ptr"] >= 0).all() and (index["size"] > 0).all() and (index["ptr"] + index["size"] <= size).all()
    raw = index["mode"] == 1
    assert (index["height"].astype(int) * index["width"] * 3 == index["size"])[raw].all()


def test_an_image_larger_than_a_page_is_refused_with_the_remedy_and_nothing_is_left(tmp_path):
    with pytest.raises(DataError, match="image 0 .2000 x 1500. takes 9000000 bytes.*max_resolution"):
        write_beton(tmp_path / "large.beton", lambda sample: encoded(np.zeros((1500, 2000, 3), np.uint8), False), np.zeros(1, int))
    assert list(tmp_path.iterdir()) == []


def test_an_image_that_fails_ends_the_writing_and_leaves_nothing(tmp_path):
    def encode(sample):
        if sample == 5:
            raise DataError("image 5 is broken")
        return encoded(image(sample), False)

    with pytest.raises(DataError, match="image 5 is broken"):
        write_beton(tmp_path / "failed.beton", encode, np.zeros(10, int))
    assert list(tmp_path.iterdir()) == []


def test_the_digest_is_what_sha256sum_reads(tmp_path):
    path = write(tmp_path / "a.beton")
    write_sha256(path)
    subprocess.run(["sha256sum", "--check", "--strict", sha256_file(path).name], cwd=tmp_path, check=True, capture_output=True)
