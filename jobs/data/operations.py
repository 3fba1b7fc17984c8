"""Which operations change each image: RandAugment, AutoAugment and colour jitter as tables of draws, one row for each sample.

timm's own transform says which operations there are, their probabilities and magnitudes (`timm.data.auto_augment`). Where timm would call a random
generator, a hash of (seed, epoch, sample) decides, as everywhere in `jobs.data.augment`. `jobs.data.pixels` then carries the tables out.

slot     one operation in the sequence of an image; in many slots nothing happens
value    the argument of timm's function, after noise, sign and scale
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from jobs.data.augment import Floats, Ints, random_bits, uniform
from jobs.experiment.augment_limits import jitters
from jobs.experiment.specs import RecipeSpec

OPERATION: Final = np.dtype([("code", "u1"), ("resample", "u1"), ("value", "<f8")])
NOTHING: Final = 0
# what `code` says: the place in this list
NAMES: Final = (
    "Nothing",
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "Posterize",
    "Solarize",
    "SolarizeAdd",
    "Color",
    "Contrast",
    "Brightness",
    "Sharpness",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "GaussianBlur",
)
BILINEAR, BICUBIC = 2, 3  # PIL's numbers
RESAMPLES: Final[Mapping[str, int]] = {"bilinear": BILINEAR, "bicubic": BICUBIC}
# first draw of each purpose; a slot takes SLOT_DRAWS
POLICY, JITTER, CHOICE, SLOT = 64, 65, 96, 128
SLOT_DRAWS: Final = 8
LEVELS: Final = 10.0  # timm's magnitudes are tenths
JITTERED: Final = ("Brightness", "Contrast", "Color")  # in torchvision's order
JITTER_ORDERS: Final = np.array([(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])


def draw_operations(recipe: RecipeSpec, samples: Ints, *, img_size: int, interpolation: str, seed: int, epoch: int) -> NDArray[np.void] | None:
    """The operations of each sample, OPERATION (n, slots), in the order in which they act; None where the recipe has none.

    `interpolation`: of operations that move pixels; `area` chooses bilinear or bicubic at random, as timm does without a name.
    """
    parts = []
    if recipe.auto_augment is not None:
        parts.append(_augmented(recipe.auto_augment, samples, img_size, interpolation, seed, epoch))
    if jitters(recipe):
        parts.append(_jittered(recipe.color_jitter or 0.0, samples, seed, epoch))
    return np.concatenate(parts, axis=1) if parts else None


def timm_transform(words: str, img_size: int) -> Any:
    """timm's transform for the words of an `auto_augment`: its RandAugment with `ops`, or its AutoAugment with `policy`."""
    from models.torchvision_shim import load_timm

    load_timm()
    from timm.data.auto_augment import auto_augment_transform, rand_augment_transform

    make = rand_augment_transform if words.startswith("rand") else auto_augment_transform
    return make(words, {"translate_const": int(img_size * 0.45)})


def _augmented(words: str, samples: Ints, img_size: int, interpolation: str, seed: int, epoch: int) -> NDArray[np.void]:
    transform = timm_transform(words, img_size)
    if words.startswith("rand"):
        choices = _choices(transform, samples, seed, epoch)
        ops = transform.ops
    else:
        ops = [op for policy in transform.policy for op in policy]
        length = len(transform.policy[0])
        policies = np.floor(uniform(seed, epoch, samples, POLICY) * len(transform.policy)).astype(int)
        choices = policies[:, None] * length + np.arange(length)
    table = np.zeros(choices.shape, OPERATION)
    for slot in range(choices.shape[1]):
        for number, op in enumerate(ops):
            chosen = np.flatnonzero(choices[:, slot] == number)
            if len(chosen):
                table[chosen, slot] = _drawn(op, samples[chosen], SLOT + SLOT_DRAWS * slot, img_size, interpolation, seed, epoch)
    return table


def _choices(transform: Any, samples: Ints, seed: int, epoch: int) -> Ints:
    """The operation of each layer of RandAugment, (n, layers), as places in `transform.ops`: alike, or weighted and then without replacement."""
    layers, count = transform.num_layers, len(transform.ops)
    if transform.choice_weights is None:
        numbers = [uniform(seed, epoch, samples, SLOT + SLOT_DRAWS * layer) for layer in range(layers)]
        return np.floor(np.stack(numbers, axis=1) * count).astype(int)
    # The operation whose exponential clock rings first is drawn with its weight, and so on with those that are left.
    rings = [-np.log1p(-uniform(seed, epoch, samples, CHOICE + number)) / weight for number, weight in enumerate(transform.choice_weights)]
    return np.argsort(np.stack(rings, axis=1), axis=1, kind="stable")[:, :layers]


def _drawn(op: Any, samples: Ints, first: int, img_size: int, interpolation: str, seed: int, epoch: int) -> NDArray[np.void]:
    """One of timm's AugmentOps for each sample, OPERATION (n,). `first`: the first draw of the slot."""
    name = BASES.get(op.name, op.name)
    table = np.zeros(len(samples), OPERATION)
    applied = uniform(seed, epoch, samples, first + 1) <= op.prob if op.prob < 1 else np.ones(len(samples), bool)
    table["code"] = np.where(applied, NAMES.index(name), NOTHING)
    level = np.clip(_levels(op, samples, first + 2, seed, epoch), 0.0, op.magnitude_max or LEVELS)
    if op.name in VALUES:
        sign = np.where(uniform(seed, epoch, samples, first + 4) > 0.5, -1.0, 1.0)
        table["value"] = VALUES[op.name](level, sign, op.hparams)
    if op.name == "GaussianBlurRand":
        table["value"] = 0.1 + (2.0 * table["value"] - 0.1) * uniform(seed, epoch, samples, first + 6)
    if name.startswith("Translate") and op.name.endswith("Rel"):
        table["value"] *= img_size
    bilinear = uniform(seed, epoch, samples, first + 5) < 0.5
    table["resample"] = RESAMPLES.get(interpolation, np.where(bilinear, BILINEAR, BICUBIC))
    table[~applied] = np.zeros((), OPERATION)
    return table


def _levels(op: Any, samples: Ints, first: int, seed: int, epoch: int) -> Floats:
    """The magnitude of each sample: the operation's, normal around it, or uniform below it."""
    if op.magnitude_std == math.inf:
        return float(op.magnitude) * uniform(seed, epoch, samples, first)
    level: Floats = np.full(len(samples), float(op.magnitude))
    return level + float(op.magnitude_std) * normal(seed, epoch, samples, first) if op.magnitude_std > 0 else level


def normal(seed: int, epoch: int, samples: Ints, draw: int) -> Floats:
    """A standard normal float64 for each of `samples`, from the uniform numbers of `draw` and the next one (Box and Muller 1958)."""
    radius = np.sqrt(-2.0 * np.log1p(-uniform(seed, epoch, samples, draw)))
    numbers: Floats = radius * np.cos(2.0 * np.pi * uniform(seed, epoch, samples, draw + 1))
    return numbers


def _jittered(amount: float, samples: Ints, seed: int, epoch: int) -> NDArray[np.void]:
    """torchvision's ColorJitter without hue, OPERATION (n, 3): three factors, in one of six orders."""
    factors = np.stack([_factors(amount, uniform(seed, epoch, samples, JITTER + number)) for number in range(3)], axis=1)
    order = JITTER_ORDERS[random_bits(seed, epoch, samples, JITTER + 3) % np.uint64(6)]
    table = np.zeros((len(samples), 3), OPERATION)
    table["code"] = np.array([NAMES.index(name) for name in JITTERED])[order]
    table["value"] = np.take_along_axis(factors, order, axis=1)
    return table


def _factors(amount: float, numbers: Floats) -> Floats:
    low, high = max(0.0, 1.0 - amount), 1.0 + amount
    return low + (high - low) * numbers


# timm's LEVEL_TO_ARG for arrays of levels and signs; the sign is -1 where timm's _randomly_negate would negate

Scale = Callable[[Floats, Floats, Mapping[str, Any]], Any]


def _bits(level: Floats) -> Any:
    return np.trunc(level / LEVELS * 4)


def _threshold(level: Floats) -> Any:
    return np.minimum(256, np.trunc(level / LEVELS * 256))


def _enhanced(level: Floats, *_: Any) -> Floats:
    return level / LEVELS * 1.8 + 0.1


def _enhanced_increasing(level: Floats, sign: Floats, *_: Any) -> Any:
    return np.maximum(0.1, 1.0 + sign * (level / LEVELS * 0.9))


def _sheared(level: Floats, sign: Floats, *_: Any) -> Floats:
    return sign * (level / LEVELS * 0.3)


def _translated(level: Floats, sign: Floats, hparams: Mapping[str, Any]) -> Floats:
    return sign * (level / LEVELS * float(hparams["translate_const"]))


def _translated_rel(level: Floats, sign: Floats, hparams: Mapping[str, Any]) -> Any:
    return sign * (level / LEVELS * hparams.get("translate_pct", 0.45))


def _within(level: Floats, low: float, high: float) -> Any:
    return np.maximum(low, np.minimum(high, low + (high - low) * (level / LEVELS)))


VALUES: Final[Mapping[str, Scale]] = {
    "Rotate": lambda level, sign, _: sign * (level / LEVELS * 30.0),
    "Posterize": lambda level, *_: _bits(level),
    "PosterizeIncreasing": lambda level, *_: 4 - _bits(level),
    "PosterizeOriginal": lambda level, *_: _bits(level) + 4,
    "Solarize": lambda level, *_: _threshold(level),
    "SolarizeIncreasing": lambda level, *_: 256 - _threshold(level),
    "SolarizeAdd": lambda level, *_: np.minimum(128, np.trunc(level / LEVELS * 110)),
    "Color": _enhanced,
    "ColorIncreasing": _enhanced_increasing,
    "Contrast": _enhanced,
    "ContrastIncreasing": _enhanced_increasing,
    "Brightness": _enhanced,
    "BrightnessIncreasing": _enhanced_increasing,
    "Sharpness": _enhanced,
    "SharpnessIncreasing": _enhanced_increasing,
    "ShearX": _sheared,
    "ShearY": _sheared,
    "TranslateX": _translated,
    "TranslateY": _translated,
    "TranslateXRel": _translated_rel,
    "TranslateYRel": _translated_rel,
    "Desaturate": lambda level, *_: np.clip(1.0 - _within(level, 0.5, 1.0), 0.0, 1.0),  # the factor that timm's function makes of it
    "GaussianBlur": lambda level, *_: _within(level, 0.1, 2.0),
    "GaussianBlurRand": lambda level, *_: _within(level, 0.0, 1.0),
}
# the operation that carries out a name of timm's
BASES: Final[Mapping[str, str]] = {
    name: {"Desaturate": "Color"}.get(name, name.removesuffix("Rel").removesuffix("Rand").removesuffix("Increasing").removesuffix("Original"))
    for name in VALUES
}
