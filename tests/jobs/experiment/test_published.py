"""Which evaluation a cell has, and which cells are held against published figures."""

from dataclasses import replace
from typing import Any

import pytest

from jobs.experiment.cell import Cell
from jobs.experiment.identity import plain
from jobs.experiment.ids import CellId
from jobs.experiment.published import comparison, evaluated_as_published, follows_published
from jobs.experiment.specs import DataSpec, ModelSpec, RecipeSpec
from models.pruning.registry import create_method
from models.published import PUBLISHED

IMAGENET = DataSpec(source="imagefolder", path="/data/imagenet")
UNTRAINED = RecipeSpec(epochs=0, finetune_epochs=0)


def model(name: str = "mambavision_s", **options: Any) -> ModelSpec:
    return ModelSpec(name=name, label=name, options={"pretrained": "/weights.pth"} | options)


def official_cell(**changes: Any) -> Cell:
    """MambaVision-S as it is, evaluated as published; `changes` of its fields."""
    data = evaluated_as_published(model(), IMAGENET, ())
    cell = Cell(id=CellId("c"), model=model(), method=create_method("dense"), data=data, recipe=UNTRAINED, seed=0)
    return replace(cell, **changes)


def held(cell: Cell, **found: Any) -> Any:
    return comparison(cell, **{"classes": 1000, "img_size": 224, "images": 50_000} | found)


def test_an_official_checkpoint_is_evaluated_as_its_authors_do() -> None:
    assert evaluated_as_published(model(), IMAGENET, ()).eval_crop == 0.93
    assert evaluated_as_published(model("vim_tiny"), IMAGENET, ()).eval_crop == 0.875


def test_what_the_user_has_set_stays() -> None:
    given = replace(IMAGENET, eval_crop=0.9)
    assert evaluated_as_published(model(), given, {"eval_crop"}).eval_crop == 0.9


@pytest.mark.parametrize("other", [ModelSpec(name="mambavision_s", label="m"), model("vim_micro")], ids=["no file", "no figures"])
def test_other_models_keep_the_data_as_they_are(other: ModelSpec) -> None:
    assert evaluated_as_published(other, IMAGENET, ()) is IMAGENET


def test_an_untouched_official_checkpoint_is_held_against_its_figures() -> None:
    assert held(official_cell()).published is PUBLISHED["mambavision_s"] and held(official_cell()).note is None
    few = held(official_cell(), images=2000)
    assert few.published is not None and few.note == "published on 50000 images, measured here on 2000"
    assert held(official_cell(model=model(pretrained_key="model_ema", drop_path=0.5))).published is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"method": create_method("magnitude", sparsity=0.5)},
        {"recipe": RecipeSpec(epochs=0, finetune_epochs=1)},
        {"model": ModelSpec(name="mambavision_s", label="m")},
        {"model": model("vim_micro")},
    ],
    ids=["pruned", "fine-tuned", "random weights", "no figures"],
)
def test_what_is_pruned_or_trained_is_not_and_needs_no_word(changes: dict[str, Any]) -> None:
    result = held(official_cell(**changes))
    assert (result.published, result.note) == (None, None)


@pytest.mark.parametrize(
    ("changes", "found", "why"),
    [
        ({}, {"classes": 10}, "imagefolder with 10 classes is not ImageNet-1k, which has 1000"),
        ({"data": replace(official_cell().data, source="synthetic")}, {}, "synthetic with 1000 classes is not ImageNet-1k"),
        ({}, {"img_size": 384}, "img_size is 384, and was 224"),
        ({"data": replace(official_cell().data, eval_crop=1.0)}, {}, "eval_crop is 1.0, and was 0.93"),
        ({"model": model(layer_scale=0.1)}, {}, "the model has other options (layer_scale)"),
    ],
)
def test_another_evaluation_is_not_compared_and_the_record_says_why(changes: dict[str, Any], found: dict[str, int], why: str) -> None:
    result = held(official_cell(**changes), **found)
    assert result.published is None and result.note.startswith("not compared with the published top-1 of 83.3%: ") and why in result.note


def test_weights_that_were_changed_when_they_were_loaded_are_not_compared() -> None:
    result = held(official_cell(), changes=["position embeddings were resampled"])
    assert result.published is None and result.note == "not compared with the published top-1 of 83.3%: position embeddings were resampled"


def test_a_record_shows_whether_it_was_evaluated_as_published() -> None:
    data = plain(evaluated_as_published(model(), IMAGENET, ()))
    assert follows_published("mambavision_s", {"pretrained": "w"}, data)
    assert not follows_published("mambavision_s", {"pretrained": None}, data)
    assert not follows_published("mambavision_t", {"pretrained": "w"}, data)
    assert not follows_published("vim_micro", {"pretrained": "w"}, data)
    assert not follows_published("mambavision_s", {"pretrained": "w"}, {})  # of version 0.1
