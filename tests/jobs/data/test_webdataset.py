"""Tar shards of WebDataset, in small: as tarfile, and so webdataset's own writer, makes them."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.data.beton import DataError
from jobs.data.prepare import check_data, prepare
from jobs.data.webdataset import read_webdataset, webdataset_identity, webdataset_problems
from jobs.experiment.specs import DataSpec


def pixels(seed: int) -> np.ndarray:
    """A random image, (40 + seed, 50, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (40 + seed, 50, 3), dtype=np.uint8)


def png(seed: int) -> bytes:
    """A random image as a file."""
    file = io.BytesIO()
    Image.fromarray(pixels(seed)).save(file, "PNG")
    return file.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    """A tar file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def members(seeds: range, label: str = "cls", folder: str = "") -> dict[str, bytes]:
    """Samples whose classes go round 0, 1, 2."""
    content = {}
    for seed in seeds:
        content[f"{folder}n{seed:04}.png"] = png(seed)
        content[f"{folder}n{seed:04}.{label}"] = str(seed % 3).encode() if label == "cls" else json.dumps({"label": seed % 3, "w": 50}).encode()
    return content


@pytest.fixture(params=["cls", "json"])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> DataSpec:
    """Two tar files of 5 images for training, and one for tests."""
    for number in range(2):
        write_tar(tmp_path / f"d/set-train-{number:03}.tar", members(range(5 * number, 5 * number + 5), request.param))
    write_tar(tmp_path / "d/set-val-000.tar", members(range(10, 15), request.param, folder="val.images/"))
    return DataSpec(source="webdataset", path=str(tmp_path / "d"), img_size=32, loader="torch")


def test_images_and_labels_are_those_of_the_tar_files_in_their_order(data: DataSpec) -> None:
    assert check_data(data) == []
    content = read_webdataset(data, 32)
    assert content.classes == 3 and content.names == ("0", "1", "2")
    assert content.train.labels.tolist() == [seed % 3 for seed in range(10)] and content.test.labels.tolist() == [1, 2, 0, 1, 2]
    for sample in (9, 0, 4, 5):
        assert (content.train.image(sample) == pixels(sample)).all()
    assert content.test.name(4).endswith("set-val-000.tar: val.images/n0014.png") and (content.test.image(4) == pixels(14)).all()


def test_patterns_name_the_shards(data: DataSpec) -> None:
    named = DataSpec(source="webdataset", path=f"{data.path}/set-train-{{000..001}}.tar", test_path=f"{data.path}/set-val-000.tar", img_size=32)
    assert len(read_webdataset(named, 32).train.labels) == 10
    assert webdataset_identity(named, False) == webdataset_identity(data, False)


@pytest.mark.slow
def test_any_number_of_processes_writes_them(data: DataSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.data.shards.SAMPLES", 3)
    assert len({prepare(data, tmp_path / f"cache{workers}", workers=workers).sha256 for workers in (0, 2)}) == 1


def test_classes_may_be_names_which_are_numbered_by_the_alphabet(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_tar(tmp_path / f"{split}.tar", {"a.png": png(1), "a.cls": b"tench\n", "b.png": png(2), "b.cls": b"ant"})
    content = read_webdataset(DataSpec(source="webdataset", path=str(tmp_path)), 32)
    assert content.names == ("ant", "tench") and content.train.labels.tolist() == [1, 0]


def test_other_members_and_hidden_names_are_left_out(tmp_path: Path) -> None:
    more = {"._a.png": b"", "a.png": png(1), "a.cls": b"0", "a.txt": b"words", "b.seg.png": b"", "b.jpg": png(2), "b.cls": b"1"}
    for split in ("train", "val"):
        write_tar(tmp_path / f"{split}.tar", more)
    content = read_webdataset(DataSpec(source="webdataset", path=str(tmp_path)), 32)
    assert content.train.labels.tolist() == [0, 1] and content.train.name(1).endswith(": b.jpg")


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"a.png": b"x"}, r"the sample of a.png lacks a class .*: its members are .png"),
        ({"a.cls": b"0"}, r"the sample of a.cls lacks an image .*: its members are .cls"),
        ({"a.png": b"x", "a.json": b"{}"}, "lacks a class"),
        ({"a.png": b"x", "a.json": b"no json"}, "lacks a class"),
        ({"a.png": b"x", "a.cls": b" "}, "lacks a class"),
        ({".a": b"x"}, "holds no images: its members must be called"),
        ({}, "holds no images"),
    ],
)
def test_a_sample_that_lacks_a_part_is_named_with_the_remedy(tmp_path: Path, members: dict[str, bytes], said: str) -> None:
    for split in ("train", "val"):
        write_tar(tmp_path / f"{split}.tar", members)
    with pytest.raises(DataError, match=said):
        raise DataError("\n".join(webdataset_problems(DataSpec(source="webdataset", path=str(tmp_path)))))


@pytest.mark.parametrize("kept", [100, 2000, -512, -10240])
def test_a_tar_file_that_was_cut_is_named(data: DataSpec, kept: int) -> None:
    path = Path(data.path or "") / "set-train-001.tar"
    content = path.read_bytes()
    if kept == -10240:  # exactly behind a member: what is left is well formed but for its end
        kept = content.index(b"n0006.png")
    path.write_bytes(content[:kept] if kept != -512 else content[: -len(content) % 512 - 512] + b"x" * 512)
    with pytest.raises(DataError, match="set-train-001.tar: not a whole tar file without compression"):
        read_webdataset(data, 32)


def test_a_compressed_tar_file_is_refused(tmp_path: Path) -> None:
    for split in ("train", "val"):
        with tarfile.open(tmp_path / f"{split}.tar", "w:gz"):
            pass
    (problem,) = webdataset_problems(DataSpec(source="webdataset", path=str(tmp_path)))
    assert "train.tar: not a whole tar file without compression" in problem


def test_classes_that_training_lacks_and_a_single_class_are_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "train.tar", {"a.png": png(1), "a.cls": b"0", "b.png": png(2), "b.cls": b"1"})
    write_tar(tmp_path / "val.tar", {"a.png": png(1), "a.cls": b"5"})
    with pytest.raises(DataError, match=r"classes that no training image has \(1\): 5"):
        read_webdataset(DataSpec(source="webdataset", path=str(tmp_path)), 32)
    write_tar(tmp_path / "train.tar", {"a.png": png(1), "a.cls": b"5"})
    with pytest.raises(DataError, match="all its labels are"):
        read_webdataset(DataSpec(source="webdataset", path=str(tmp_path)), 32)


def test_an_image_that_cannot_be_decoded_is_named_by_its_member(data: DataSpec, tmp_path: Path) -> None:
    write_tar(Path(data.path or "") / "set-train-001.tar", {"a.png": b"no image", "a.cls": b"2"})
    with pytest.raises(DataError, match="set-train-001.tar: a.png: cannot be decoded"):
        prepare(data, tmp_path / "cache")
