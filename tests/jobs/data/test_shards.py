"""Shards and the file that they become: the same bytes whatever the shards, and whenever the assembling is interrupted."""

from pathlib import Path

import numpy as np
import pytest

from jobs.data import shards as module
from jobs.data.beton import PAGE_BYTES, DataError, Encoded, encoded
from jobs.data.faults import UnusableImage
from jobs.data.shards import Encode, Shard, assemble, assembled_path, drop_lost, raise_faults, shards_of, write_beton, write_shard

COUNT = 50
LABELS = np.arange(COUNT) % 3


def image(sample: int) -> Encoded:
    """Images of 1 to 50 kB, and one of 8 MB, so that there are several pages."""
    side = 1670 if sample in (13, 31) else 20 + 2 * sample
    return encoded(np.random.default_rng(sample).integers(0, 256, (side, side, 3), dtype=np.uint8), jpg=False)


def written(folder: Path, encode: Encode = image) -> list[Shard]:
    """Complete shards, written last one first."""
    folder.mkdir()
    shards = shards_of(folder, "train", COUNT)
    for shard in reversed(shards):
        write_shard(shard, encode)
    return shards


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file that one shard becomes."""
    path = tmp_path_factory.mktemp("whole") / "a.beton"
    write_beton(path, image, LABELS)
    assert [path] == list(path.parent.iterdir()) and path.stat().st_size > 3 * PAGE_BYTES
    return path.read_bytes()


@pytest.fixture
def seven(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of seven images."""
    monkeypatch.setattr(module, "SAMPLES", 7)


@pytest.mark.usefixtures("seven")
def test_shards_in_any_sequence_become_the_file_that_one_shard_becomes(tmp_path: Path, whole: bytes) -> None:
    shards = written(tmp_path / "work")
    assert [len(shard.samples) for shard in shards] == [7] * 7 + [1]
    assemble(shards, LABELS)
    assert assembled_path(tmp_path / "work", "train").read_bytes() == whole
    assert not list((tmp_path / "work").glob("*.images")), "the images were moved"


@pytest.mark.usefixtures("seven")
@pytest.mark.parametrize("call", [1, 5, 8, 100])
def test_an_interrupted_assembling_goes_on_to_the_same_bytes(tmp_path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    shards, calls, write_at = written(tmp_path / "work"), 0, module.write_at

    def interrupted(*arguments: object) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        write_at(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "write_at", interrupted)
        patch.setattr(module, "write_tables", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assemble(shards, LABELS)
    assert not drop_lost(shards)
    assemble(shards, LABELS)
    assert assembled_path(tmp_path / "work", "train").read_bytes() == whole


@pytest.mark.usefixtures("seven")
@pytest.mark.parametrize("loss", ["cut", "removed", "file removed"])
def test_images_that_are_lost_are_written_again(tmp_path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch, loss: str) -> None:
    shards = written(tmp_path / "work")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "write_tables", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assemble(shards[:3], LABELS[:21])
    if loss == "cut":
        shards[5].path("images").write_bytes(b"half")
    elif loss == "removed":
        shards[5].path("images").unlink()
    else:
        assembled_path(tmp_path / "work", "train").unlink()
    assert drop_lost(shards)
    left = [shard for shard in shards if not shard.done()]
    assert left == ([shards[5]] if loss != "file removed" else shards[:3])
    for shard in left:
        write_shard(shard, image)
    assert not drop_lost(shards)
    assemble(shards, LABELS)
    assert assembled_path(tmp_path / "work", "train").read_bytes() == whole


@pytest.mark.usefixtures("seven")
def test_all_images_that_cannot_be_used_are_known_from_complete_shards(tmp_path: Path) -> None:
    def encode(sample: int) -> Encoded:
        if sample % 20 == 3:
            raise UnusableImage(f"{sample}.jpg", fault="cannot be decoded", detail="it is empty", remedy="replace or remove {it}")
        return image(sample)

    with pytest.raises(DataError, match=r"3 cannot be decoded: 23.jpg \(it is empty\), 3.jpg \(it is empty\), 43.jpg .*: replace or remove them"):
        raise_faults(written(tmp_path / "work", encode))
    with pytest.raises(DataError, match="3 cannot be decoded"):
        write_beton(tmp_path / "a.beton", encode, LABELS)
    assert not list(tmp_path.rglob("*.beton"))


def test_an_interrupted_shard_is_not_complete_and_leaves_no_images(tmp_path: Path) -> None:
    def encode(sample: int) -> Encoded:
        if sample == 20:
            raise KeyboardInterrupt
        return image(sample)

    (shard,) = shards_of(tmp_path, "train", COUNT)
    with pytest.raises(KeyboardInterrupt):
        write_shard(shard, encode)
    assert list(tmp_path.iterdir()) == [] and not shard.done()


@pytest.mark.parametrize("threads", [1, 3])
def test_every_image_is_counted_once(tmp_path: Path, threads: int) -> None:
    counted: list[int] = []
    write_shard(shards_of(tmp_path, "train", COUNT)[0], image, threads=threads, tick=counted.append)
    assert sum(counted) == COUNT
