"""Images as a .beton holds them."""

import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs.data.beton import JPG, read_index
from jobs.data.content import Part
from jobs.data.decoding import SELECTION, fill, library
from jobs.data.encoding import encoded_sample, fitted
from jobs.data.faults import UnusableImage
from jobs.data.images import decoded_bytes
from jobs.data.plain_decoding import fill_plainly
from jobs.data.prepare import prepare
from jobs.data.sources import READERS, content_key
from jobs.experiment.specs import DataSpec
from tests.support.images import write_folder


@pytest.mark.parametrize(
    ("size", "limit", "expected"),
    [
        ((8, 8), None, (32, 32)),
        ((32, 32), None, (32, 32)),
        ((16, 48), None, (32, 96)),
        ((300, 200), None, (300, 200)),
        ((300, 200), 150, (150, 100)),
        ((400, 40), 100, (320, 32)),
        ((31, 64), 64, (32, 66)),
    ],
)
def test_images_are_enlarged_to_the_networks_size_and_shrunk_to_the_limit(size, limit, expected):
    assert fitted(np.zeros((*size, 3), np.uint8), 32, limit).shape == (*expected, 3)


def test_enlarging_keeps_a_digits_brightness():
    content = READERS["digits"].read(DataSpec(), 32)
    small, large = content.train.image(0), fitted(content.train.image(0), 32, None)
    assert abs(small.mean() - large.mean()) < 5
    assert abs(large.reshape(8, 4, 8, 4, 3).mean((1, 3)) - small).mean() < 15


# JPEGs that keep their bytes

DATA = DataSpec(source="imagefolder", path="x", img_size=32, write_mode="jpg")


def smooth(height: int, width: int) -> np.ndarray:
    """An image as photographs are: neighbours are alike."""
    y, x = np.mgrid[:height, :width]
    return np.stack([127 + 100 * np.sin(x / 9), 127 + 100 * np.cos(y / 7), (x + y) % 256], axis=2).astype(np.uint8)


def jpeg(image: Image.Image, **options: object) -> bytes:
    """An image as the bytes of a JPEG."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80, **options)
    return file.getvalue()


def part_of(content: bytes) -> Part:
    """A part with one image."""
    return Part(labels=np.zeros(1, int), image=lambda _: decoded_bytes(content, "x"), name=lambda _: "x", content=lambda _: content)


def turned(orientation: int) -> Image.Exif:
    """EXIF data with an orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


RGB = Image.fromarray(smooth(60, 50))
KEPT = {
    "baseline": jpeg(RGB),
    "progressive": jpeg(RGB, progressive=True),
    "not subsampled": jpeg(RGB, subsampling=0),
    "as RGB": jpeg(RGB, keep_rgb=True),
    "restart markers": jpeg(RGB, restart_marker_rows=1),
    "upright by EXIF": jpeg(RGB, exif=turned(1)),
    "damaged EXIF": jpeg(RGB, exif=b"Exif\0\0garbage"),
    "bytes behind its end": jpeg(RGB) + b"more",
}
WRITTEN_ANEW = {
    "grey": (jpeg(RGB.convert("L")), {}),
    "cmyk": (jpeg(RGB.convert("CMYK")), {}),
    "turned by EXIF": (jpeg(RGB, exif=turned(6)), {}),
    "shrunk": (jpeg(RGB), {"max_resolution": 40}),
    "enlarged": (jpeg(RGB), {"img_size": 55}),
    "raw": (jpeg(RGB), {"write_mode": "raw"}),
    "of the network's size": (jpeg(RGB.resize((32, 32))), {}),
}


@pytest.mark.parametrize("content", KEPT.values(), ids=KEPT.keys())
def test_a_jpeg_that_nothing_changes_keeps_its_bytes_and_both_decoders_read_them(content: bytes) -> None:
    stored = encoded_sample(DATA, part_of(content), 0)
    assert stored.content.tobytes() == content and (stored.mode, stored.height, stored.width) == (JPG, 60, 50)
    row, out = np.zeros(1, SELECTION), np.empty((1, 32, 32, 3), np.uint8)
    row["size"], row["mode"], row["height"], row["width"] = len(content), JPG, 60, 50
    row["rows"] = row["cols"] = 32
    expected = decoded_bytes(content, "x")[:32, :32].astype(int)
    for decode in (lambda: fill(stored.content, row, out, "area", 1), lambda: fill_plainly(stored.content, row, out, "area")):
        decode()
        assert abs(out[0] - expected).max() <= 3


@pytest.mark.parametrize(("content", "settings"), WRITTEN_ANEW.values(), ids=WRITTEN_ANEW.keys())
def test_other_images_are_written_anew(content: bytes, settings: dict[str, Any]) -> None:
    stored = encoded_sample(replace(DATA, **settings), part_of(content), 0)
    assert stored.content.tobytes() != content
    if stored.mode == JPG:
        assert Image.open(io.BytesIO(stored.content.tobytes())).size == (stored.width, stored.height)


@pytest.mark.skipif(library() is None, reason="Pillow and OpenCV see no damage here")
def test_a_jpeg_in_which_the_loaders_decoder_sees_damage_is_written_anew() -> None:
    content = KEPT["baseline"][:900] + b"\xff\xd0\x00\x11" + KEPT["baseline"][904:]
    stored = encoded_sample(DATA, part_of(content), 0)
    assert stored.content.tobytes() != content and (stored.height, stored.width) == (60, 50)


def test_a_png_and_a_cut_jpeg_are_left_to_the_decoder_of_all_formats() -> None:
    file = io.BytesIO()
    RGB.save(file, "PNG")
    assert encoded_sample(DATA, part_of(file.getvalue()), 0).mode == JPG
    with pytest.raises(UnusableImage, match="cannot be decoded"):
        encoded_sample(DATA, part_of(jpeg(RGB)[:-200]), 0)


def test_keeping_bytes_belongs_to_the_identity_of_files_alone(tmp_path: Path) -> None:
    for part in ("train", "val"):
        write_folder(tmp_path / part, suffix=".jpg", count=4)
    data = DataSpec(source="imagefolder", path=str(tmp_path), img_size=32, loader="torch")
    parts = [1, data.source, READERS[data.source].identity(data, False), 32]
    assert content_key(data, 32, 1) == hashlib.sha256(json.dumps([*parts, "raw", None]).encode()).hexdigest()[:16]
    assert content_key(replace(data, write_mode="jpg"), 32, 1) != hashlib.sha256(json.dumps([*parts, "jpg", None]).encode()).hexdigest()[:16]
    synthetic = DataSpec(source="synthetic", write_mode="jpg")
    parts = [1, "synthetic", READERS["synthetic"].identity(synthetic, False), 32, "jpg", None]
    assert content_key(synthetic, 32, 1) == hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    dataset = prepare(replace(data, write_mode="jpg"), tmp_path / "cache")
    index, content = read_index(dataset.train), dataset.train.read_bytes()
    first = content[index["ptr"][0] : index["ptr"][0] + index["size"][0]]
    assert first == (tmp_path / "train" / "ant" / "0.jpg").read_bytes()


def test_a_decoder_that_cannot_be_loaded_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def of_another_version() -> None:
        raise ImportError("built from another version")

    monkeypatch.setattr("jobs.data.decoding.library", of_another_version)
    with pytest.raises(ImportError, match="built from another version"):
        encoded_sample(DATA, part_of(KEPT["baseline"]), 0)
