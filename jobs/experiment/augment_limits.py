"""The rules of a recipe's fields that change images and targets: timm's words for `auto_augment`, and fields that exclude each other.

Without torch and timm: the launcher tells a mistake before anything is queued. `jobs.data.operations` gives the words to timm itself.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from jobs.experiment.specs import RecipeSpec
from models.text import did_you_mean, valid_names
from models.typed import Limit, between

POLICIES: Final = ("rand", "original", "originalr", "v0", "v0r", "3a")  # first words of `auto_augment`
SETS: Final = {"weights": 15, "3a": 3, "3aw": 14}  # timm's sets of RandAugment's operations besides the usual one, and their operations
WEIGHTED: Final = ("weights", "3aw")  # their operations are drawn without replacement
LEVELS: Final = 10  # timm's greatest magnitude without `mmax`
PROBABILITY: Final = Limit(words="from 0 to 1", holds=lambda value: 0 <= value <= 1)
# What may stand behind each key of the words, and whether it is a whole number
NUMBERS: Final[Mapping[str, tuple[Limit, bool]]] = {
    "m": (between(0, 100), True),
    "n": (between(1, 15), True),
    "p": (Limit(words="above 0 and at most 1", holds=lambda value: 0 < value <= 1), False),
    "mstd": (Limit(words="0 or more", holds=lambda value: value >= 0), False),
    "mmax": (between(1, 100), True),
    "inc": (between(0, 1), True),
}
MEANINGS: Final = "m magnitude, n layers, p probability, mstd deviation of the magnitude, mmax its greatest, inc 0 or 1, t set of operations"


def auto_augment_problem(words: str) -> str | None:
    """What is wrong with the words of an `auto_augment`, with the remedy; None for words that timm understands.

    timm ignores or asserts where this says what is wrong: sections without a number, keys that it does not know, sets that it does not have.
    """
    policy, *sections = words.split("-")
    if policy == "augmix":
        return f"augmix is not offered; valid: {', '.join(POLICIES)}"
    if policy not in POLICIES:
        return f"unknown policy {policy!r}{valid_names(policy, POLICIES)}, such as rand-m9-mstd0.5-inc1 or original-mstd0.5"
    values: dict[str, float] = {}
    chosen = ""
    for section in sections:
        if policy == "rand" and section.startswith("t"):
            chosen = section[1:]
            if chosen not in SETS:
                return f"unknown set of operations {section!r}{valid_names(section, [f't{name}' for name in SETS])}"
            continue
        key, number = _split(section)
        if problem := _section_problem(policy, section, key, number, values):
            return problem
        values[key] = float(number)
    return _values_problem(values, chosen)


def _split(section: str) -> tuple[str, str]:
    """The letters and the number of a section: `mstd0.5` is mstd and 0.5."""
    letters = re.match(r"[^\d.]*", section)
    key = letters.group() if letters else ""
    return key, section[len(key) :]


def _section_problem(policy: str, section: str, key: str, number: str, values: Mapping[str, float]) -> str | None:
    known = [*NUMBERS] if policy == "rand" else ["mstd"]
    if key not in known:
        wanted = MEANINGS if policy == "rand" else f"{policy} takes mstd alone, the deviation of the magnitude"
        return f"unknown section {section!r}{did_you_mean(key, known) or ';'} valid: {wanted}"
    if key in values:
        return f"{key} is given twice: leave one of the sections out"
    limit, whole = NUMBERS[key]
    if not re.fullmatch(r"\d+" if whole else r"\d+(\.\d*)?", number):
        return f"section {section!r} needs a {'whole ' if whole else ''}number behind {key}, such as {key}1"
    return None if limit.holds(float(number)) else f"{key} must be {limit.words}, got {number}"


def _values_problem(values: Mapping[str, float], chosen: str) -> str | None:
    most = values.get("mmax", LEVELS)
    if values.get("m", LEVELS) > most:
        return f"magnitude m{values.get('m', LEVELS):g} is above the greatest, {most:g}: add mmax{max(values.get('m', LEVELS), most):g} or lower m"
    if chosen in WEIGHTED and values.get("n", 2) > SETS[chosen]:
        return f"n{values['n']:g} layers are more than the {SETS[chosen]} operations of t{chosen}, which are drawn without replacement"
    return None


def jitters(recipe: RecipeSpec) -> bool:
    """True if a recipe's colour jitter acts: as in timm, not beside `auto_augment`, but for its policies 3a."""
    return recipe.color_jitter is not None and (recipe.auto_augment is None or "3a" in recipe.auto_augment)


def mixes(recipe: RecipeSpec) -> bool:
    """True if a recipe mixes images, so that its targets are probabilities."""
    return recipe.mixup > 0 or recipe.cutmix > 0


# A field that acts only beside others: it must be at its default where none of them is set
COMPANIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "random_erase_mode": ("random_erase",),
    "random_erase_count": ("random_erase",),
    "mixup_prob": ("mixup", "cutmix"),
    "mixup_mode": ("mixup", "cutmix"),
    "mixup_off_epoch": ("mixup", "cutmix"),
}


def augment_conflicts(recipe: RecipeSpec, ranks: int) -> Iterator[tuple[str, str]]:
    """Fields that change images and targets and are right alone but wrong together, on this number of ranks: each with its rule."""
    if recipe.auto_augment is not None and (problem := auto_augment_problem(recipe.auto_augment)):
        yield "auto_augment", problem
    default = RecipeSpec()
    for name, companions in COMPANIONS.items():
        if getattr(recipe, name) != getattr(default, name) and not any(getattr(recipe, companion) for companion in companions):
            yield name, f"acts only with {' or '.join(companions)}, and the recipe has none: set one, or leave it out"
    if mixes(recipe):
        yield from _mixing_conflicts(recipe, ranks)


def _mixing_conflicts(recipe: RecipeSpec, ranks: int) -> Iterator[tuple[str, str]]:
    if recipe.mixup_switch_prob != RecipeSpec().mixup_switch_prob and not (recipe.mixup > 0 and recipe.cutmix > 0):
        yield "mixup_switch_prob", "chooses between mixup and cutmix, and the recipe has one of them: set both, or leave it out"
    if conflict := odd_micro_batch(recipe.batch_size, recipe.micro_batch_size, ranks):
        yield ("batch_size" if recipe.micro_batch_size is None else "micro_batch_size"), conflict
    if recipe.repeated_augment > 1 and recipe.batch_size < 2 * recipe.repeated_augment:
        least = 2 * recipe.repeated_augment
        rule = f"{recipe.batch_size} images, {recipe.repeated_augment} of each, would be mixed with themselves; use at least {least}"
        yield "batch_size", rule


def odd_micro_batch(batch_size: int, micro_batch_size: int | None, ranks: int) -> str | None:
    """Why images cannot be mixed in pairs within micro-batches, or None. A batch that does not divide at all is `batch_conflict`'s."""
    ranks = max(1, ranks)
    micro = micro_batch_size or batch_size // ranks
    if micro % 2 == 0 or batch_size % (micro * ranks):
        return None
    partners = "mixup and cutmix mix neighbours, so a micro-batch needs an even number of images"
    if micro_batch_size is None:
        return f"{batch_size} images on {ranks} ranks are {micro} each; {partners}: use a multiple of {2 * ranks}"
    even = next((size for size in range(micro + 1, batch_size // ranks + 1) if size % 2 == 0 and (batch_size // ranks) % size == 0), None)
    return f"{micro} is odd; {partners}" + (f": use {even}" if even else f", and batch_size a multiple of {2 * ranks}")


def images_of_epoch(recipe: RecipeSpec, images: int) -> int:
    """Images that an epoch takes of so many: all, or as many repeats of fewer images, which timm's RepeatAugSampler rounds down to 256."""
    return images if recipe.repeated_augment == 1 or images < 256 else images // 256 * 256
