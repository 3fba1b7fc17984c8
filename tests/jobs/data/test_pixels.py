"""Every operation against timm's own function, to the bit."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs.data import pixels
from jobs.data.operations import BASES, BICUBIC, BILINEAR, NAMES, OPERATION, VALUES
from jobs.data.pixels import change, operate, posterize
from models.torchvision_shim import load_timm

load_timm()
from timm.data import auto_augment as timm_ops  # noqa: E402

FILL = (124, 116, 104)
LEVELS = (0.0, 0.3, 2.6, 5.0, 7.7, 9.0, 9.99)


@pytest.fixture(autouse=True)
def sign(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets what timm would choose at random: the sign."""
    return lambda value: monkeypatch.setattr(timm_ops, "_randomly_negate", lambda level: value * level)


def images(size: int = 21) -> Iterator[np.ndarray]:
    """Noise, soft shapes, a narrow range of greys, and one colour alone."""
    generator = np.random.default_rng(5)
    noise = generator.integers(0, 256, (size, size, 3), dtype=np.uint8)
    yield noise
    yield np.asarray(Image.fromarray(noise[:5, :5]).resize((size, size), Image.Resampling.BICUBIC)).copy()
    yield (100 + noise // 16).astype(np.uint8)
    yield np.full((size, size, 3), (7, 200, 90), np.uint8)


def ours(image: np.ndarray, name: str, value: float, resample: int) -> np.ndarray:
    changed = image.copy()
    row = np.array([(NAMES.index(BASES.get(name, name)), resample, value)], OPERATION)
    operate(changed, row, np.array(FILL, np.uint8))
    return changed


def value_of(name: str, level: float, negative: int, size: int, hparams: dict[str, Any]) -> float:
    value = float(np.asarray(VALUES[name](np.array([level]), np.array([float(negative)]), hparams))[0]) if name in VALUES else 0.0
    return value * size if name.endswith("Rel") else value


@pytest.mark.parametrize("name", sorted(set(timm_ops.NAME_TO_OP) - {"GaussianBlurRand"}))
def test_an_operation_gives_the_pixels_of_timms_function_at_every_magnitude_and_sign(name: str, sign: Callable[[int], None]) -> None:
    compared = 0
    for image in (*images(21), *images(40)):
        size = len(image)
        hparams = {"translate_const": int(0.45 * size)}
        for level, negative, resample in ((level, s, r) for level in LEVELS for s in (1, -1) for r in (BILINEAR, BICUBIC)):
            sign(negative)
            argument = timm_ops.LEVEL_TO_ARG[name]
            arguments = argument(level, hparams) if argument else ()
            if name.startswith("Posterize") and arguments[0] < 1:
                continue  # Pillow 13 refuses it; see below
            kwargs = {"fillcolor": FILL, "resample": Image.Resampling(resample)}
            expected = np.asarray(timm_ops.NAME_TO_OP[name](Image.fromarray(image), *arguments, **kwargs))
            got = ours(image, name, value_of(name, level, negative, size, hparams), resample)
            assert (got == expected).all(), (name, size, level, negative, resample)
            compared += 1
    assert compared > 50


@pytest.mark.parametrize("name", ["ShearX", "ShearY", "TranslateX", "TranslateY"])
def test_pixels_slide_as_pils_where_rounding_decides_which_are_neighbours(name: str) -> None:
    image = next(images(33))
    amounts = [sign * whole / (line + 0.5) for whole in (1, 2, 3) for line in (0, 1, 4, 7, 12, 31) for sign in (1, -1)]
    for value in (*amounts, 1.0, -2.0, 0.5, 1e-17, -1e-17, 32.999999, 40.0, -33.0):
        for resample in (BILINEAR, BICUBIC):
            kwargs = {"fillcolor": FILL, "resample": Image.Resampling(resample)}
            expected = np.asarray(timm_ops.NAME_TO_OP[name](Image.fromarray(image), value, **kwargs))
            assert (ours(image, name, value, resample) == expected).all(), (value, resample)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_tiny_images_change_as_pils_do(size: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    for name in sorted(set(NAMES) - {"Nothing"}):
        value = {"Posterize": 4.0, "Solarize": 100.0, "SolarizeAdd": 60.0, "Rotate": 20.0}.get(name, 0.7)
        arguments = () if name in ("AutoContrast", "Equalize", "Invert") else (int(value) if value > 1 and name != "Rotate" else value,)
        kwargs = {"fillcolor": FILL, "resample": Image.Resampling.BICUBIC}
        expected = np.asarray(timm_ops.NAME_TO_OP[name](Image.fromarray(image), *arguments, **kwargs))
        assert (ours(image, name, value, BICUBIC) == expected).all(), name


def test_images_turn_as_pils_without_the_library_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "library", lambda: None)
    for image in (next(images(21)), next(images(2))):
        for degrees, resample in ((d, r) for d in (27.3, -30.0, -4.0, 1e-9, 0.0) for r in (BILINEAR, BICUBIC)):
            expected = timm_ops.rotate(Image.fromarray(image), degrees, fillcolor=FILL, resample=Image.Resampling(resample))
            assert (ours(image, "Rotate", degrees, resample) == np.asarray(expected)).all(), (degrees, resample)


def test_no_bit_is_black_as_in_pillow_before_13() -> None:
    image = next(images())
    for bits in (0, -4):
        black = image.copy()
        posterize(black, bits)
        assert not black.any()


def test_a_batch_changes_as_its_rows_say_with_any_threads_and_other_images_stay() -> None:
    batch = np.stack(list(images(40)) * 5)
    table = np.zeros((len(batch), 3), OPERATION)
    generator = np.random.default_rng(0)
    table["code"][::2] = generator.integers(0, len(NAMES), (len(batch) // 2, 3))
    table["resample"] = BICUBIC
    table["value"] = generator.uniform(0.2, 1.9, table.shape)
    alone = batch.copy()
    for image, row in zip(alone, table, strict=True):
        operate(image, row, np.array(FILL, np.uint8))
    for threads in (1, 3):
        changed = batch.copy()
        change(changed, table, np.array(FILL, np.uint8), threads)
        assert (changed == alone).all() and (changed[1::2] == batch[1::2]).all() and (changed != batch).any()
