"""Every mode of Pillow becomes RGB with its meaning, or is refused by the file's name."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.data.faults import UnusableImage
from jobs.data.images import decoded, rgb

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
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n")
    with pytest.raises(UnusableImage, match=r"\(it is a pointer of Git LFS; git lfs pull gets the file itself\)"):
        decoded(str(path))


def of_two_pixels(mode: str, left: tuple[int, ...], right: tuple[int, ...]) -> Image.Image:
    """An image of mode `mode` with the pixels `left` and `right`."""
    return Image.frombytes(mode, (2, 1), bytes((*left, *right)))


@pytest.mark.parametrize(
    ("mode", "left", "right", "expected"),
    [
        ("La", (64, 128), (0, 0), (255 - 128 + 64, 255)),  # premultiplied: half of white shines through
        ("RGBa", (64, 64, 64, 128), (0, 0, 0, 0), (255 - 128 + 64, 255)),
        ("RGBX", (9, 9, 9, 0), (80, 80, 80, 255), (9, 80)),  # the fourth byte means nothing
        ("HSV", (0, 0, 77), (0, 0, 200), (77, 200)),
        ("LAB", (0, 0, 0), (255, 0, 0), (0, 255)),
    ],
)
def test_modes_that_no_plain_file_holds_keep_their_greys(mode: str, left: tuple[int, ...], right: tuple[int, ...], expected: tuple[int, int]) -> None:
    pixels = rgb(of_two_pixels(mode, left, right), "image")
    assert pixels.shape == (1, 2, 3) and abs(pixels[0].astype(int) - np.array(expected)[:, None]).max() <= 1


@pytest.mark.parametrize("mode", ["P", "PA"])
def test_transparent_colours_of_a_palette_lie_over_white(tmp_path: Path, mode: str) -> None:
    image = Image.new("P", (6, 5), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    image.paste(0, (0, 0, 3, 5))
    if mode == "P":
        image.save(path := tmp_path / "palette.png", transparency=0)
        pixels = decoded(str(path))
    else:
        image.info["transparency"] = 0
        pixels = rgb(image.convert("PA"), "image")
    assert (pixels[:, :3] == 255).all() and (pixels[:, 3:] == (200, 100, 50)).all()


def png(colour_type: int, values: list[int], *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of 16 bits with one row, written by hand, because Pillow writes none of several channels."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour_type]
    header = struct.pack(">IIBBBBB", len(values) // channels, 1, 16, colour_type, 0, 0, 0)
    row = zlib.compress(b"\0" + np.array(values, ">u2").tobytes())
    parts = [(b"IHDR", header), *chunks, (b"IDAT", row), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content)) for name, content in parts
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (png(2, [1000, 2000, 60000, 256, 512, 768]), [(3, 7, 234), (1, 2, 3)]),
        (png(2, [1000, 2000, 60000, 256, 512, 768], (b"tRNS", struct.pack(">3H", 1000, 2000, 60000))), [(255, 255, 255), (1, 2, 3)]),
        (png(0, [1000, 65535, 25700], (b"tRNS", struct.pack(">H", 1000))), [(255,) * 3, (255,) * 3, (100,) * 3]),
        (png(4, [25700, 65535, 0, 0]), [(100,) * 3, (255,) * 3]),
        (png(6, [256, 512, 768, 65535, 0, 0, 0, 0]), [(1, 2, 3), (255, 255, 255)]),
    ],
)
def test_png_of_16_bits_keeps_colours_and_transparency(tmp_path: Path, content: bytes, expected: list[tuple[int, ...]]) -> None:
    (path := tmp_path / "deep.png").write_bytes(content)
    assert decoded(str(path))[0].tolist() == [list(colour) for colour in expected]


def test_grey_of_a_large_pgm_and_of_either_byte_order_is_scaled(tmp_path: Path) -> None:
    (path := tmp_path / "grey.pgm").write_bytes(b"P5 6 5 65535\n" + RAMP.astype(">u2").tobytes())
    assert (decoded(str(path))[..., 0] == np.rint(RAMP / 257)).all()
    big = Image.frombytes("I;16B", (6, 5), RAMP.astype(">u2").tobytes())
    assert (rgb(big, "image")[..., 0] == np.rint(RAMP / 257)).all()


def test_a_tiff_in_which_zero_is_white_is_turned_round(tmp_path: Path) -> None:
    Image.fromarray(RAMP).save(path := tmp_path / "negative.tif", tiffinfo={262: 0})
    assert (decoded(str(path))[..., 0] == 255 - np.rint(RAMP / 257)).all()


def test_the_orientation_of_a_tiff_is_applied_once(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path := tmp_path / "turned.tif", tiffinfo={274: 6})
    assert (decoded(str(path)) == np.rot90(pixels, -1)).all()


def test_exif_that_cannot_be_read_leaves_an_image_as_it_is(tmp_path: Path) -> None:
    Image.new("RGB", (6, 5), "red").save(path := tmp_path / "photo.jpg", exif=b"Exif\0\0no TIFF header")
    assert decoded(str(path)).shape == (5, 6, 3)


def test_the_first_of_several_frames_counts(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (6, 5), "red"), Image.new("RGB", (6, 5), "blue")
    for suffix in ("tif", "png"):
        first.save(path := tmp_path / f"frames.{suffix}", save_all=True, append_images=[second])
        assert (decoded(str(path)) == (255, 0, 0)).all()


def test_too_many_pixels_are_refused_by_name(tmp_path: Path) -> None:
    Image.new("1", (14000, 13000)).save(path := tmp_path / "huge.png")
    with pytest.raises(UnusableImage, match=r"huge\.png: has more than 178,956,970 pixels .*: shrink it before"):
        decoded(str(path))


def test_a_program_in_the_place_of_an_image_is_not_run(tmp_path: Path) -> None:
    (path := tmp_path / "program.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(UnusableImage, match="its content is no image of a known format"):
        decoded(str(path))
