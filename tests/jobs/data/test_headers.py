"""What the headers of image files tell before anything is written."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.data import headers
from jobs.data.faults import UnusableImage
from jobs.data.headers import header_problems, to_read
from jobs.data.images import decoded, size_in_header
from jobs.experiment.specs import DataSpec

DATA = DataSpec(source="imagefolder", path="x", img_size=224)
SAVED = {
    "jpeg": ("RGB", "x.jpg"),
    "cmyk": ("CMYK", "x.jpg"),
    "grey": ("L", "x.png"),
    "grey with alpha": ("LA", "x.png"),
    "bits": ("1", "x.png"),
    "palette": ("P", "x.png"),
    "alpha": ("RGBA", "x.webp"),
    "16 bits": ("I;16", "x.png"),
    "16 bits of tiff": ("I;16", "x.tif"),
    "16 bits, the large byte first": ("I;16B", "x.tif"),
    "lab": ("LAB", "x.tif"),
    "32-bit integers": ("I", "x.tif"),
    "floats": ("F", "x.tif"),
}


@pytest.mark.parametrize(("mode", "name"), SAVED.values(), ids=SAVED)
def test_a_header_and_the_whole_image_agree(tmp_path: Path, mode: str, name: str) -> None:
    path = str(tmp_path / name)
    image = Image.new(mode, (30, 20))
    image.save(path)
    outcomes = []
    for read in (size_in_header, lambda path: decoded(path).shape[:2]):
        try:
            outcomes.append(str(read(path)))
        except UnusableImage as error:
            outcomes.append(f"{error.fault}: {error.remedy}")
    assert outcomes[0] == outcomes[1]
    assert (outcomes[0] == "(20, 30)") == (mode not in ("I", "F"))


def test_unusable_images_are_told_by_kind_ten_at_most(tmp_path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb00.png")
    for number in range(1, 12):
        os.link(tmp_path / "bomb00.png", tmp_path / f"bomb{number:02}.png")
    Image.new("L", (1, 300)).save(tmp_path / "narrow.png")
    Image.fromarray(np.zeros((20, 20), np.float32)).save(tmp_path / "float.tif")
    (tmp_path / "page.png").write_text("<html>")
    Image.new("L", (300, 300)).save(tmp_path / "good.png")
    page, bombs, floats, narrow = header_problems([(9, str(path)) for path in tmp_path.iterdir()], DATA)
    assert page.startswith("1 cannot be decoded: ") and "page.png (its content is no image of a known format): replace" in page
    assert bombs.startswith("12 has more than 178,956,970 pixels: ") and "bomb09.png" in bombs and " and 2 more: shrink them before" in bombs
    assert floats.startswith("1 holds 32-bit floats: ") and "float.tif (mode F)" in floats
    assert "narrow.png (1 x 300, stored as 224 x 67200): crop or remove them" in narrow


def test_of_many_files_the_smallest_the_largest_and_some_between_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [(size, f"{size}.png") for size in np.random.default_rng(0).permutation(100_000).tolist()]
    sizes = sorted(int(name.removesuffix(".png")) for name in to_read(files))
    assert len(set(sizes)) == len(sizes) == headers.HEADERS
    assert sizes[:500] == [*range(500)] and sizes[-500:] == [*range(99_500, 100_000)]
    assert max(np.diff(sizes)) < 200
    assert to_read(files[:2000]) == [name for _, name in files[:2000]]


def test_a_message_says_when_not_all_were_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headers, "HEADERS", 4)
    files = []
    for number in range(9):
        (tmp_path / f"{number}.png").write_bytes(b"x" * (number + 1))
        files.append((number + 1, str(tmp_path / f"{number}.png")))
    (problem,) = header_problems(files, DATA)
    assert problem.startswith("4 cannot be decoded: ") and problem.endswith(" (the headers of 4 of 9 images were read)")
    assert "0.png" in problem and "8.png" in problem
