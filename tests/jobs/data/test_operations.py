"""Tables of operations against timm's own classes: values exactly, distributions over 10,000 draws with fixed seeds."""

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import ks_2samp

from jobs.data.operations import BASES, BICUBIC, BILINEAR, NAMES, VALUES, draw_operations, normal, timm_transform
from jobs.experiment.specs import RecipeSpec
from models.torchvision_shim import load_timm
from tests.support.statistics import alike

load_timm()
import torch  # noqa: E402
from timm.data import auto_augment as timm_ops  # noqa: E402
from torchvision.transforms import ColorJitter  # noqa: E402

DRAWS = 10_000
SIZE = 64
WORDS = (
    "rand-m9-mstd0.5-inc1",
    "rand-m7-n3-p0.8",
    "rand-m15-n4-mmax20-mstd101",
    "rand-m9-n3-tweights-mstd0.5",
    "rand-n2-t3aw-inc1",
)
POLICIES = ("original-mstd0.5", "v0", "3a")


def table(words: str, count: int = DRAWS, epoch: int = 3, **settings: Any) -> np.ndarray:
    recipe = RecipeSpec(auto_augment=words, **settings)
    drawn = draw_operations(recipe, np.arange(count), img_size=SIZE, interpolation="area", seed=11, epoch=epoch)
    assert drawn is not None
    return drawn


def timms(words: str, monkeypatch: pytest.MonkeyPatch, count: int = DRAWS) -> list[list[tuple[str, float, int]]]:
    """What timm's own transform calls for each of so many images: base names, arguments and resampling."""
    calls: list[tuple[str, float, int]] = []

    def noted(name: str) -> Callable[..., Any]:
        def call(image: Any, *arguments: float, **kwargs: Any) -> Any:
            value = float(arguments[0]) if arguments else 0.0
            if name == "GaussianBlurRand":  # draws its radius itself
                value = random.uniform(0.1, 2.0 * value)
            if name == "Desaturate":
                value = min(1.0, max(0.0, 1.0 - value))
            chosen = random.choice(kwargs["resample"])
            calls.append((BASES.get(name, name), value * SIZE if name.endswith("Rel") else value, int(chosen)))
            return image

        return call

    monkeypatch.setattr(timm_ops, "NAME_TO_OP", {name: noted(name) for name in timm_ops.NAME_TO_OP})
    transform = timm_transform(words, SIZE)
    random.seed(1)
    np.random.seed(1)  # timm's own generator
    rows = []
    for _ in range(count):
        calls.clear()
        transform(None)
        rows.append(list(calls))
    return rows


def names_of(drawn: np.ndarray) -> list[tuple[str, ...]]:
    """The names of a table's operations, by sample."""
    return [tuple(NAMES[code] for code in row) for row in drawn["code"]]


def ours(drawn: np.ndarray) -> list[list[tuple[str, float, int]]]:
    return [[(NAMES[code], value, resample) for code, resample, value in row if code] for row in drawn.tolist()]


@pytest.mark.parametrize("name", sorted(VALUES))
def test_values_are_those_of_timms_levels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    levels, hparams = np.linspace(0, 12, 241), {"translate_const": 28}
    for sign in (1.0, -1.0):
        monkeypatch.setattr(timm_ops, "_randomly_negate", lambda value, sign=sign: sign * value)
        expected = [timm_ops.LEVEL_TO_ARG[name](level, hparams)[0] for level in levels.tolist()]
        if name == "Desaturate":
            expected = [min(1.0, max(0.0, 1.0 - value)) for value in expected]
        assert np.array_equal(VALUES[name](levels, np.full(241, sign), hparams), np.array(expected, float))


def test_every_operation_of_timm_has_a_name_here() -> None:
    assert {BASES.get(name, name) for name in timm_ops.NAME_TO_OP} == set(NAMES) - {"Nothing"}
    assert set(VALUES) == {name for name, argument in timm_ops.LEVEL_TO_ARG.items() if argument}


@pytest.mark.parametrize("words", WORDS + POLICIES)
def test_operations_counts_order_and_values_are_distributed_as_timms(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, theirs = ours(table(words)), timms(words, monkeypatch)
    assert alike(Counter(map(len, mine)), Counter(map(len, theirs)))
    assert alike(Counter(name for row in mine for name, *_ in row), Counter(name for row in theirs for name, *_ in row))
    sequences = [Counter(tuple(name for name, *_ in row) for row in rows) for rows in (mine, theirs)]
    assert alike(*sequences)
    assert alike(*(Counter(resample for row in rows for *_, resample in row if resample) for rows in (mine, theirs)))
    for name in {name for row in theirs for name, *_ in row}:
        values = [np.array([value for row in rows for other, value, _ in row if other == name]) for rows in (mine, theirs)]
        if len(np.unique(values[1])) < 30:
            assert alike(*(Counter(array.round(9).tolist()) for array in values))
        else:
            assert ks_2samp(*values).pvalue > 1e-6


def test_resampling_by_name_and_at_random() -> None:
    moving = [NAMES.index(name) for name in ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")]
    for interpolation, expected in (("bicubic", {BICUBIC}), ("bilinear", {BILINEAR}), ("area", {BILINEAR, BICUBIC})):
        recipe = RecipeSpec(auto_augment="rand-m9")
        drawn = draw_operations(recipe, np.arange(500), img_size=SIZE, interpolation=interpolation, seed=0, epoch=0)
        assert drawn is not None and set(drawn["resample"][np.isin(drawn["code"], moving)].tolist()) == expected


def test_a_jitters_factors_and_orders_are_torchvisions() -> None:
    recipe = RecipeSpec(color_jitter=0.4)
    drawn = draw_operations(recipe, np.arange(DRAWS), img_size=SIZE, interpolation="area", seed=2, epoch=0)
    assert drawn is not None and drawn.shape == (DRAWS, 3)
    torch.manual_seed(0)
    jitter = ColorJitter(0.4, 0.4, 0.4)
    theirs: list[tuple[Any, ...]] = [ColorJitter.get_params(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue) for _ in range(DRAWS)]
    names = ("Brightness", "Contrast", "Color")
    expected = Counter(tuple(names[number] for number in row[0].tolist() if number < 3) for row in theirs)
    assert alike(Counter(names_of(drawn)), expected) and len(expected) == 6
    for number, name in enumerate(names):
        values = drawn["value"][drawn["code"] == NAMES.index(name)]
        assert ks_2samp(values, [row[number + 1] for row in theirs]).pvalue > 1e-6
        assert 0.6 <= values.min() and values.max() <= 1.4
    wide = draw_operations(RecipeSpec(color_jitter=1.5), np.arange(DRAWS), img_size=SIZE, interpolation="area", seed=2, epoch=0)
    assert wide is not None and 0 <= wide["value"].min() < 0.01 and 2.49 < wide["value"].max() <= 2.5


def test_jitter_follows_the_policy_3a_alone_as_in_timm() -> None:
    assert table("3a", color_jitter=0.3).shape[1] == 1 + 3 and table("rand-m9", color_jitter=0.3).shape[1] == 2
    assert names_of(table("3a", 20, color_jitter=0.3))[0][0] in ("Solarize", "Color", "GaussianBlur")
    assert draw_operations(RecipeSpec(), np.arange(5), img_size=SIZE, interpolation="area", seed=0, epoch=0) is None


def test_a_row_depends_on_its_own_sample_seed_and_epoch_alone() -> None:
    for words in ("rand-m9-mstd0.5-inc1", "rand-n3-tweights", "v0", "3a"):
        whole = table(words, 400, color_jitter=0.3)
        recipe = RecipeSpec(auto_augment=words, color_jitter=0.3)
        some = np.array([350, 3, 77])
        again = draw_operations(recipe, some, img_size=SIZE, interpolation="area", seed=11, epoch=3)
        assert (again == whole[some]).all()
        assert (table(words, 400, epoch=4, color_jitter=0.3) != whole).any()


def test_no_sample_and_one_sample_have_tables_too() -> None:
    for words in ("rand-m9-mstd0.5-inc1", "rand-tweights", "original"):
        assert table(words, 0).shape == (0, 2) and table(words, 1).shape == (1, 2)


def test_normal_numbers_are_normal() -> None:
    numbers = normal(1, 2, np.arange(100_000), 130)
    generator = np.random.default_rng(0)
    assert ks_2samp(numbers, generator.standard_normal(100_000)).pvalue > 1e-3 and np.isfinite(numbers).all()
