"""The presets: their values are settings, their sources are links, and the page shows both."""

from pathlib import Path

import pytest

from jobs.experiment.limits import DATA, RECIPE, recipe_conflicts, violations
from jobs.experiment.presets import PRESETS, Setting, shown, table
from jobs.experiment.specs import DataSpec, RecipeSpec
from models.published import PUBLISHED
from models.typed import build, fields_of

PAGE = Path(__file__).resolve().parents[3] / "docs" / "presets.md"


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_valid_recipe_for_valid_data(name: str) -> None:
    recipe, data = build(RecipeSpec, PRESETS[name].recipe_values()), build(DataSpec, PRESETS[name].data_values())
    assert [*violations(recipe, RECIPE), *recipe_conflicts(recipe, 8), *violations(data, DATA)] == []


def test_a_preset_says_everything_but_what_no_paper_has() -> None:
    ours = {"finetune_epochs", "finetune_lr", "micro_batch_size", "zero_stage", "scan", "layer_decay"}
    unused = {"momentum", "nesterov", "bce_threshold", "bce_sum", "mixup_off_epoch"}
    whole = set().union(*(preset.recipe for preset in PRESETS.values()))
    assert set(fields_of(RecipeSpec)) - whole - ours - unused == {"distill"} & set(fields_of(RecipeSpec))
    assert len({frozenset(preset.data) for preset in PRESETS.values()}) == 1


def test_the_models_of_the_papers_have_presets_of_their_names() -> None:
    finetuned = {name for name in PUBLISHED if name.endswith("_stride8")}
    assert {name for name in PUBLISHED if name.startswith(("vim", "mambavision"))} - finetuned <= set(PRESETS)


def test_what_the_presets_of_a_family_share_is_shared_and_what_differs_is_the_papers() -> None:
    learnt = {name: (preset.recipe_values()["batch_size"], preset.recipe_values()["lr"]) for name, preset in PRESETS.items()}
    assert learnt["vim_tiny"] == (1024, 1e-3) and learnt["vim_small"] == (512, 1e-3) and learnt["mambavision_l2"] == (4096, 5e-3)
    assert {learnt[name] for name in learnt if name.startswith(("vmamba", "swin"))} == {(1024, 1e-3)}
    mesa = [PRESETS[f"mambavision_{size}"].recipe_values()["mesa"] for size in ("t", "t2", "s", "b", "l", "l2")]
    assert mesa == [0.5, 0.75, 1.0, 1.0, 6.0, 6.0]


def test_a_source_is_a_file_at_a_commit_or_an_issue() -> None:
    assert Setting(1, "hustvl/Vim@dd0358a:vim/main.py").url == "https://github.com/hustvl/Vim/blob/dd0358a/vim/main.py"
    assert Setting(1, "NVlabs/MambaVision#57").url == "https://github.com/NVlabs/MambaVision/issues/57"
    for preset in PRESETS.values():
        assert all(setting.url.startswith("https://github.com/") for setting in (*preset.recipe.values(), *preset.data.values()))


def test_the_page_shows_every_value_with_its_source() -> None:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")][1:]
    assert lines == table(), "python -m jobs.experiment.presets prints the table"


def test_values_are_shown_as_yaml_has_them() -> None:
    assert [shown(value) for value in (None, True, (0.9, 0.999), 1e-3, 5, "a")] == ["null", "true", "[0.9, 0.999]", "0.001", "5", "a"]
