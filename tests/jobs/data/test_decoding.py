"""The C++ library against PIL, OpenCV and torch: every pixel, for boxes of any size, in JPEGs of every form."""

import hashlib
import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jobs.data import decoding
from jobs.data.augment import BOX, eval_boxes
from jobs.data.beton import JPG, RAW, DataError
from jobs.data.decoding import FILTERS, SELECTION, fill, normalised
from jobs.data.plain_decoding import boxed
from jobs.experiment.sources import IMAGENET_MEAN, IMAGENET_STD
from jobs.experiment.specs import DataSpec

IMAGENET = (IMAGENET_MEAN, IMAGENET_STD)

BUILT = pytest.mark.skipif(decoding.library() is None, reason="the C++ library is not built")
FORMS = {  # of JPEGs, with all kinds of codes
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "4:2:0": {"subsampling": 2},
    "progressive": {"subsampling": 2, "progressive": True},
    "coarse": {"quality": 5},
    "fine": {"quality": 100, "optimize": True},
    "restarts": {"restart_marker_rows": 1},
}


def natural(height, width, seed=0):
    """Smooth colours with edges and a little noise, (height, width, 3)."""
    draw = np.random.default_rng(seed)
    small = Image.fromarray(draw.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    image = np.asarray(small).astype(int) + draw.normal(0, 6, (height, width, 1)).astype(int)
    image[height // 3 :, width // 2 :] //= 2
    return np.clip(image, 0, 255).astype(np.uint8)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def jpeg(image, **form):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", **{"quality": 90} | form)
    return np.frombuffer(file.getvalue(), np.uint8)


def row(image, mode, content, **fields):
    rows = np.zeros(1, SELECTION)
    for name, value in {"size": content.size, "height": image.shape[0], "width": image.shape[1], "mode": mode, **fields}.items():
        rows[name] = value
    return rows


def filled(content, rows, size, interpolation="area"):
    out = np.empty((len(rows), size, size, 3), np.uint8)
    fill(content, rows, out, interpolation, 1)
    return out


def difference(image, size, interpolation, **box):
    """The largest difference between the library and numpy, OpenCV and PIL, for a box of a raw image."""
    content = image.reshape(-1)
    rows = row(image, RAW, content, **box)
    return np.abs(filled(content, rows, size, interpolation)[0].astype(int) - boxed(image, rows[0], size, interpolation)).max()


boxes = st.fixed_dictionaries(
    {"top": st.integers(-9, 40), "left": st.integers(-9, 40), "rows": st.integers(1, 70), "cols": st.integers(1, 70), "flip": st.integers(0, 1)}
)


@BUILT
@pytest.mark.parametrize("make", [natural, noise])
@pytest.mark.parametrize("interpolation", FILTERS)
@settings(max_examples=60, deadline=None)
@given(box=boxes, size=st.integers(1, 48))
def test_a_box_is_resized_as_pil_and_opencv_do_to_within_a_grey_level(interpolation, make, box, size):
    assert difference(make(61, 53), size, interpolation, **box) <= 1


@BUILT
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@settings(max_examples=40, deadline=None)
@given(rows=st.integers(24, 90), cols=st.integers(24, 90), top=st.integers(-3, 9), left=st.integers(-3, 9))
def test_an_image_resized_whole_and_cut_is_that_of_pil(interpolation, rows, cols, top, left):
    assert difference(natural(61, 53), 20, interpolation, rows=rows, cols=cols, top=top, left=left, whole=1) <= 1


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("height", "width", "eval_crop"), [(50, 61, 0.875), (90, 40, 0.9), (33, 33, 1.0), (131, 64, 0.95)])
def test_evaluation_gives_the_pixels_of_timm(interpolation, height, width, eval_crop):
    from models.torchvision_shim import load_timm

    load_timm()
    from timm.data import create_transform

    image, size = natural(height, width), 32
    transform = create_transform(size, is_training=False, interpolation=interpolation, crop_pct=eval_crop, mean=(0, 0, 0), std=(1, 1, 1))
    expected = (transform(Image.fromarray(image)) * 255).round().permute(1, 2, 0).numpy().astype(int)
    data = DataSpec(eval_crop=eval_crop, interpolation=interpolation)
    content, rows = image.reshape(-1), row(image, RAW, image.reshape(-1))
    box = eval_boxes(data, size, rows["height"], rows["width"])
    for name in BOX.names or ():
        rows[name] = box[name]
    assert np.abs(filled(content, rows, size, interpolation)[0] - expected).max() <= 1


@BUILT
def test_a_box_of_the_right_size_is_copied():
    image = noise(50, 40)
    for interpolation in FILTERS:
        assert difference(image, 32, interpolation, top=5, left=3, rows=32, cols=32) == 0
        assert difference(image, 40, interpolation, top=-3, left=7, rows=40, cols=40, flip=1) == 0


PIXELS = {"area": "90a2bd4f6f24b057", "bilinear": "a355f9d31fe15cc1", "bicubic": "3dfb4062696ada2e"}


@BUILT
@pytest.mark.parametrize(("interpolation", "digest"), PIXELS.items())
def test_a_faster_way_to_the_same_pixels_is_to_the_same_pixels(interpolation, digest):
    """Digests of the first version that had these filters: an id stands for pixels that never change."""
    image = (np.arange(61 * 53 * 3, dtype=np.uint64) * np.uint64(2654435761) >> np.uint64(13) & np.uint64(255)).astype(np.uint8).reshape(61, 53, 3)
    places = [(0, 0, 61, 53, 0, 0), (3, 5, 40, 31, 1, 0), (20, 9, 11, 17, 0, 0), (-4, 7, 30, 60, 1, 0), (2, 3, 41, 36, 0, 1)]
    rows = np.concatenate([row(image, RAW, image.reshape(-1), **dict(zip(BOX.names or (), place, strict=True))) for place in places])
    assert hashlib.sha256(filled(image.reshape(-1), rows, 29, interpolation).tobytes()).hexdigest()[:16] == digest


@BUILT
@pytest.mark.parametrize("box", [{"top": 90}, {"left": 90}, {"top": -40, "left": 3}, {"left": -31, "top": -31}])
def test_a_box_outside_of_its_image_is_zero(box):
    image = noise(50, 40)
    content = jpeg(image)
    for mode, stored in ((RAW, image.reshape(-1)), (JPG, content)):
        assert not filled(stored, row(image, mode, stored, rows=31, cols=31, **box), 16, "bicubic").any()


@BUILT
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@settings(max_examples=40, deadline=None)
@given(box=boxes)
def test_part_of_a_jpeg_has_the_pixels_of_the_whole(form, box):
    image = natural(77, 83)
    content = jpeg(image, **form)
    whole = np.asarray(Image.open(io.BytesIO(content.tobytes())))
    size = 32
    box |= {"rows": size, "cols": size}
    assert (filled(content, row(image, JPG, content, **box), size)[0] == boxed(whole, row(image, JPG, content, **box)[0], size)).all()


@BUILT
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize(("denominator", "side"), [(2, 64), (2, 100), (4, 128), (8, 256)])
def test_a_scaled_jpeg_is_that_of_pils_draft_and_near_the_whole(form, denominator, side):
    image, size = natural(259, 270), 32
    content = jpeg(image, **form)
    rows = row(image, JPG, content, top=1, left=2, rows=side + 1, cols=side + 2)
    draft = Image.open(io.BytesIO(content.tobytes()))
    draft.draft("RGB", (270 // denominator, 259 // denominator))
    box = [number / denominator for number in (2, 1, 2 + side + 2, 1 + side + 1)]
    out = np.empty((1, size, size, 3), np.uint8)
    fill(content, rows, out, "bilinear", 1, scaled=True)
    expected = np.asarray(draft.crop((0, 0, *draft.size)).resize((size, size), Image.Resampling.BILINEAR, box=box)).astype(int)
    inside = (slice(1, -1), slice(1, -1))  # PIL's filter reaches across the edge of a box, ours stops there
    assert np.abs(out[0][inside] - expected[inside]).max() <= 1
    assert np.abs(out[0].astype(int) - filled(content, rows, size, "bilinear")[0]).mean() < 3


@BUILT
@pytest.mark.parametrize("box", [{"rows": 63, "cols": 250}, {"rows": 250, "cols": 63}, {"rows": 250, "cols": 250, "whole": 1}])
def test_a_box_below_twice_the_size_and_a_whole_image_are_never_scaled(box):
    image = natural(259, 270)
    content = jpeg(image)
    rows = row(image, JPG, content, **box)
    out = np.empty((1, 32, 32, 3), np.uint8)
    fill(content, rows, out, "bilinear", 1, scaled=True)
    assert (out == filled(content, rows, 32, "bilinear")).all()


@BUILT
def test_a_grey_jpeg_becomes_rgb():
    file = io.BytesIO()
    Image.fromarray(natural(40, 40)).convert("L").save(file, "JPEG")
    content, image = np.frombuffer(file.getvalue(), np.uint8), natural(40, 40)
    shown = filled(content, row(image, JPG, content, rows=40, cols=40), 40)[0]
    assert (shown == np.asarray(Image.open(file).convert("RGB"))).all()


@BUILT
@pytest.mark.parametrize("damage", ["cut", "ends early", "no JPEG", "CMYK", "other size", "empty"])
def test_a_damaged_jpeg_is_named_and_the_next_image_is_whole(damage):
    image = noise(64, 64)
    good = jpeg(image)
    bad, height = bytearray(good.tobytes()), 64
    if damage == "cut":
        bad[-len(bad) // 2 :] = b""
    elif damage == "ends early":
        bad[len(bad) // 2 : len(bad) // 2 + 2] = b"\xff\xd9"
    elif damage == "no JPEG":
        bad = bytearray(b"GIF89a" + bytes(100))
    elif damage == "CMYK":
        file = io.BytesIO()
        Image.fromarray(image).convert("CMYK").save(file, "JPEG")
        bad = bytearray(file.getvalue())
    elif damage == "other size":
        height = 63
    else:
        bad = bytearray(1)
    content = np.frombuffer(bytes(bad) + good.tobytes(), np.uint8)
    rows = np.concatenate([row(image, JPG, good, rows=64, cols=64, ptr=len(bad)), row(image, JPG, good, rows=64, cols=64, size=len(bad))])
    rows["height"][1] = height
    with pytest.raises(DataError, match=f"the image at byte 0 is no whole JPEG of 64 x {height}: copy or write the file again"):
        filled(content, rows, 64)
    assert (filled(content, rows[:1], 64)[0] == np.asarray(Image.open(io.BytesIO(good.tobytes())))).all()


@BUILT
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_no_damage_makes_the_decoder_leave_its_memory(form):
    image = noise(48, 64)
    good = jpeg(image, **form)
    header = good.tobytes().index(b"\xff\xda")
    draw = np.random.default_rng(0)
    for attempt in range(150):
        bad = good[: draw.integers(header, len(good))].copy() if attempt % 3 == 0 else good.copy()
        for position in draw.integers(header if attempt % 2 else 2, len(bad), 1 + attempt % 9):
            bad[position] = draw.integers(0, 256)
        content = np.concatenate([bad, good])
        rows = np.concatenate([row(image, JPG, bad, rows=48, cols=64, size=len(bad)), row(image, JPG, good, rows=48, cols=64, ptr=len(bad))])
        try:
            filled(content, rows, 24)
        except DataError as error:
            assert "the image at byte 0 is no whole JPEG" in str(error)
        assert (filled(content, rows[1:], 24) == filled(good, row(image, JPG, good, rows=48, cols=64), 24)).all()


@BUILT
@settings(max_examples=60, deadline=None)
@given(draw=st.integers(0, 10**6), height=st.integers(1, 90), width=st.integers(1, 90), quality=st.integers(1, 100), subsampling=st.integers(0, 2))
def test_whole_jpegs_of_any_size_and_quality_are_those_of_pil(draw, height, width, quality, subsampling):
    image = (noise if draw % 2 else natural)(height, width, draw)
    content = jpeg(image, quality=quality, subsampling=subsampling, optimize=bool(draw % 3))
    whole, size = np.asarray(Image.open(io.BytesIO(content.tobytes()))), max(height, width)
    rows = row(image, JPG, content, rows=size, cols=size)
    assert (filled(content, rows, size)[0] == boxed(whole, rows[0], size)).all()


@BUILT
def test_threads_change_nothing():
    image = natural(90, 70)
    content = jpeg(image)
    rows = np.concatenate([row(image, JPG, content, top=number, left=number, rows=60 - number, cols=50, flip=number % 2) for number in range(20)])
    alone = filled(content, rows, 24)
    several = np.empty_like(alone)
    fill(content, rows, several, "area", 3)
    assert (alone == several).all()


@pytest.mark.parametrize("built", [pytest.param(True, marks=BUILT), False])
def test_normalised_images_are_those_of_torch_bit_for_bit(built, monkeypatch):
    if not built:
        monkeypatch.setattr(decoding, "library", lambda: None)
    images = np.stack([noise(33, 33, seed) for seed in range(3)] + [np.full((33, 33, 3), value, np.uint8) for value in (0, 255)])
    mean, deviation = (255 * torch.tensor(values).view(1, 3, 1, 1) for values in IMAGENET)
    expected = (torch.from_numpy(images).permute(0, 3, 1, 2).float() - mean) / deviation
    for given_images in (images, images[:, ::-1]):
        assert torch.equal(normalised(given_images, IMAGENET), expected if given_images is images else expected.flip(2))
    assert normalised(images, IMAGENET).is_contiguous()


@BUILT
def test_without_the_library_images_are_nearly_the_same(monkeypatch):
    image = natural(64, 80)
    content = jpeg(image)
    rows = np.concatenate([row(image, JPG, content, top=3, left=5, rows=50, cols=60, flip=1), row(image, JPG, content, rows=40, cols=50, whole=1)])
    for interpolation in FILTERS:
        monkeypatch.undo()
        fast = filled(content, rows, 36, interpolation)
        monkeypatch.setattr(decoding, "library", lambda: None)
        assert np.abs(fast.astype(int) - filled(content, rows, 36, interpolation)).max() <= 2


@BUILT
@pytest.mark.parametrize(("name", "value"), [("SELECTION", np.dtype([("ptr", "<i8")])), ("VERSION", decoding.VERSION - 1)])
def test_a_library_of_another_version_is_refused(monkeypatch, name, value):
    decoding.library.cache_clear()
    monkeypatch.setattr(decoding, name, value)
    with pytest.raises(ImportError, match="built from another version of its source"):
        decoding.library()
    monkeypatch.undo()
    decoding.library.cache_clear()
    assert decoding.library() is not None
