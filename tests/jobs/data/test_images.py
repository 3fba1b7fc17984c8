"""Every mode of Pillow becomes RGB with its meaning, or is refused by the file's name."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.data.faults import UnusableImage
from jobs.data.images import decoded

RAMP = np.linspace(0, 65535, 30).astype(np.uint16).reshape(5, 6)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_grey_is_scaled_to_8_bits(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(RAMP).save(path := tmp_path / f"grey{suffix}")
    pixels = decoded(str(path))
    assert pixels.shape == (5, 6, 3) and (pixels[..., 0] == np.rint(RAMP / 257)).all() and (pixels[..., 1] == pixels[..., 2]).all()


def test_16_bit_grey_of_an_unknown_range_is_refused(tmp_path: Path) -> None:
    Image.fromarray(RAMP // 100).save(path := tmp_path / "dark.png")
    with pytest.raises(UnusableImage, match=r"dark\.png: holds 16-bit grey that would become black"):
        decoded(str(path))


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_32_bit_numbers_are_refused(tmp_path: Path, kind: type) -> None:
    Image.fromarray(RAMP.astype(kind)).save(path := tmp_path / "numbers.tif")
    with pytest.raises(UnusableImage, match=r"numbers\.tif: holds 32-bit .* save it with 8 or 16 bits"):
        decoded(str(path))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr"])
def test_plain_modes_are_what_pillow_converts(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)).convert(mode)
    image.save(path := tmp_path / f"image{'.tif' if mode in ('CMYK', 'YCbCr') else '.png'}")
    with Image.open(path) as saved:
        expected = np.asarray(saved.convert("RGB"))
    assert (decoded(str(path)) == expected).all()


@pytest.mark.parametrize(("mode", "colour", "over_white"), [("RGBA", (10, 20, 30, 0), (255, 255, 255)), ("LA", (40, 255), (40, 40, 40))])
def test_transparent_pixels_lie_over_white(tmp_path: Path, mode: str, colour: tuple[int, ...], over_white: tuple[int, ...]) -> None:
    Image.new(mode, (6, 5), colour).save(path := tmp_path / "clear.png")
    assert (decoded(str(path)) == over_white).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_upright_as_its_exif_orientation_says(tmp_path: Path, orientation: int) -> None:
    from PIL import ImageOps

    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path := tmp_path / "turned.png", exif=exif)
    with Image.open(path) as saved:
        assert (decoded(str(path)) == np.asarray(ImageOps.exif_transpose(saved))).all()


def test_a_file_that_is_no_image_says_why(tmp_path: Path) -> None:
    (path := tmp_path / "empty.png").touch()
    with pytest.raises(UnusableImage, match=r"empty\.png: cannot be decoded \(it is empty\)"):
        decoded(str(path))
