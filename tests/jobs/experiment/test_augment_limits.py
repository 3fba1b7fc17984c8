"""Which words and fields of augmentation a grid takes, and what it says about others."""

import re
from pathlib import Path
from typing import Any

import pytest

from jobs.experiment.augment_limits import SETS, WEIGHTED, auto_augment_problem, images_of_epoch, jitters, mixes, odd_micro_batch
from jobs.experiment.limits import recipe_conflicts
from jobs.experiment.specs import RecipeSpec
from models.torchvision_shim import load_timm
from tests.support.grids import START, mistakes

VALID = (
    "rand",
    "rand-m9-mstd0.5-inc1",
    "rand-m15-n3-p1-mmax20-inc0",
    "rand-n3-tweights-mstd1",
    "rand-t3a",
    "rand-mstd101",
    "rand-m0-mstd0.5",
    "original",
    "originalr-mstd0.5",
    "v0",
    "v0r",
    "3a-mstd1",
)


@pytest.mark.parametrize("words", VALID)
def test_what_timm_takes_is_taken(words: str) -> None:
    load_timm()
    from timm.data.auto_augment import auto_augment_transform, rand_augment_transform

    (rand_augment_transform if words.startswith("rand") else auto_augment_transform)(words)
    assert auto_augment_problem(words) is None


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("rnd-m9", "unknown policy 'rnd'; did you mean 'rand'? valid: rand, original, originalr, v0, v0r, 3a, such as rand-m9-mstd0.5-inc1"),
        ("", "unknown policy ''; valid: rand"),
        ("originl", "unknown policy 'originl'; did you mean 'original'?"),
        ("augmix-m5", "augmix is not offered; valid: rand"),
        ("rand-m9-msdt0.5", "unknown section 'msdt0.5'; did you mean 'mstd'? valid: m magnitude, n layers"),
        ("rand-m9-foo", "unknown section 'foo'; valid: m magnitude"),
        ("rand-m9-", "unknown section ''; valid:"),
        ("rand-m", "section 'm' needs a whole number behind m, such as m1"),
        ("rand-m9.5", "section 'm9.5' needs a whole number behind m"),
        ("rand-mstdinf", "unknown section 'mstdinf'; did you mean 'mstd'?"),
        ("rand-mstd", "section 'mstd' needs a number behind mstd"),
        ("rand-mstd.5", "section 'mstd.5' needs a number behind mstd"),
        ("rand-mstd1e-3", "section 'mstd1e' needs a number behind mstd"),
        ("rand-inc2", "inc must be from 0 to 1, got 2"),
        ("rand-n0", "n must be from 1 to 15, got 0"),
        ("rand-p0", "p must be above 0 and at most 1, got 0"),
        ("rand-p1.1", "p must be above 0 and at most 1, got 1.1"),
        ("rand-m9-m8", "m is given twice"),
        ("rand-m15", "magnitude m15 is above the greatest, 10: add mmax15 or lower m"),
        ("rand-mmax5", "magnitude m10 is above the greatest, 5"),
        ("rand-m5-tweight", "unknown set of operations 'tweight'; did you mean 'tweights'? valid: tweights, t3a, t3aw"),
        ("rand-n15-t3aw", "n15 layers are more than the 14 operations of t3aw, which are drawn without replacement"),
        ("v0-m9", "unknown section 'm9'; valid: v0 takes mstd alone"),
        ("original-tweights", "unknown section 'tweights'; valid: original takes mstd alone"),
    ],
)
def test_other_words_are_refused_with_the_nearest_valid_ones(words: str, problem: str) -> None:
    assert str(auto_augment_problem(words)).startswith(problem)


def test_the_sets_have_as_many_operations_as_timms() -> None:
    load_timm()
    from timm.data.auto_augment import rand_augment_choices

    assert {name: len(rand_augment_choices(name)) for name in SETS} == SETS
    assert {name for name in SETS if isinstance(rand_augment_choices(name), dict)} == set(WEIGHTED)


def conflicts(ranks: int = 1, **settings: Any) -> dict[str, str]:
    return {violation.field: violation.rule for violation in recipe_conflicts(RecipeSpec(**settings), ranks)}


@pytest.mark.parametrize(
    ("ranks", "settings", "field", "rule"),
    [
        (1, {"auto_augment": "rnd"}, "auto_augment", "unknown policy 'rnd'"),
        (1, {"random_erase_count": 2}, "random_erase_count", "acts only with random_erase, and the recipe has none"),
        (1, {"random_erase_mode": "const"}, "random_erase_mode", "acts only with random_erase"),
        (1, {"mixup_prob": 0.5}, "mixup_prob", "acts only with mixup or cutmix"),
        (1, {"mixup_mode": "pair"}, "mixup_mode", "acts only with mixup or cutmix"),
        (1, {"mixup_off_epoch": 3}, "mixup_off_epoch", "acts only with mixup or cutmix"),
        (1, {"mixup": 0.8, "mixup_switch_prob": 0.3}, "mixup_switch_prob", "chooses between mixup and cutmix"),
        (1, {"mixup": 0.8, "batch_size": 63}, "batch_size", "63 images on 1 ranks are 63 each; mixup and cutmix mix neighbours"),
        (2, {"cutmix": 1.0, "batch_size": 30}, "batch_size", "30 images on 2 ranks are 15 each; .*: use a multiple of 4"),
        (2, {"cutmix": 1.0, "batch_size": 60, "micro_batch_size": 5}, "micro_batch_size", "5 is odd; .*: use 6"),
        (2, {"cutmix": 1.0, "batch_size": 30, "micro_batch_size": 5}, "micro_batch_size", "5 is odd; .*, and batch_size a multiple of 4"),
        (1, {"mixup": 1.0, "repeated_augment": 3, "batch_size": 4}, "batch_size", "4 images, 3 of each, .* use at least 6"),
    ],
)
def test_fields_that_make_no_sense_together_are_refused(ranks: int, settings: dict[str, Any], field: str, rule: str) -> None:
    said = conflicts(ranks, **settings)
    assert list(said) == [field] and re.match(rule, said[field])


def test_a_grid_says_where_the_wrong_word_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (mistake,) = mistakes(START + "recipe: {mixup: 0.8,\n  auto_augment: rand-m9-msdt0.5}\n")
    assert mistake.startswith("grid.yaml:6: recipe.auto_augment: unknown section 'msdt0.5'; did you mean 'mstd'? valid: m magnitude")
    (mistake,) = mistakes(START + "recipe: {mixup: 0.8, batch_size: 36}\ncluster: {kind: local, tasks_per_node: 4}\n")
    assert "recipe.batch_size: 36 images on 4 ranks are 9 each; mixup and cutmix mix neighbours" in mistake
    assert mistake.endswith("use a multiple of 8")


def test_the_papers_recipe_is_taken() -> None:
    settings = {"auto_augment": "rand-m9-mstd0.5-inc1", "color_jitter": 0.3, "random_erase": 0.25, "mixup": 0.8, "cutmix": 1.0, "repeated_augment": 3}
    assert conflicts(8, batch_size=1024, **settings) == {}
    assert conflicts(2, batch_size=8, micro_batch_size=2, mixup=0.1) == {}


def test_an_indivisible_batch_is_told_as_such_alone() -> None:
    assert odd_micro_batch(63, None, 2) is None and odd_micro_batch(64, 5, 1) is None
    assert list(conflicts(2, batch_size=63, mixup=1.0)) == ["batch_size"] and odd_micro_batch(64, None, 0) is None


def test_jitter_and_mixing_by_recipe() -> None:
    assert jitters(RecipeSpec(color_jitter=0.4)) and not jitters(RecipeSpec())
    assert not jitters(RecipeSpec(color_jitter=0.4, auto_augment="rand-m9")) and jitters(RecipeSpec(color_jitter=0.4, auto_augment="rand-t3a"))
    assert mixes(RecipeSpec(cutmix=1.0)) and mixes(RecipeSpec(mixup=0.1)) and not mixes(RecipeSpec())


def test_repeats_leave_the_images_of_an_epoch_as_timm_rounds_them() -> None:
    repeated = RecipeSpec(repeated_augment=3)
    assert [images_of_epoch(repeated, count) for count in (255, 256, 300, 1_281_167)] == [255, 256, 256, 1_281_024]
    assert images_of_epoch(RecipeSpec(), 300) == 300
