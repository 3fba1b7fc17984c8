"""Every bound holds just inside and just outside it, for a grid as for callers of the data's door and of the engine."""

import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.data.prepare import check_data
from jobs.experiment.limits import CLUSTER, DATA, RECIPE, batch_conflict, lamb_conflict, oversized_batch, training_images, unreachable_rewind
from jobs.experiment.specs import ClusterSpec, DataSpec, RecipeSpec
from models.pruning.base import Budget
from models.pruning.registry import create_method
from models.typed import fields_of
from tests.support.grids import START, mistakes, read

TINY = 1e-9


@dataclass(frozen=True, kw_only=True)
class Bound:
    """Values of a field at the edge of what is valid, and other fields under which they are tried."""

    inside: tuple[Any, ...]
    outside: tuple[Any, ...]
    among: str = ""  # other fields, as YAML


AT_LEAST_0, AT_LEAST_1 = Bound(inside=(0,), outside=(-1,)), Bound(inside=(1,), outside=(0,))
ABOVE_0 = Bound(inside=(TINY,), outside=(0,))
FROM_0_BELOW_1 = Bound(inside=(0, 0.999), outside=(-TINY, 1))
BETWEEN_0_AND_1 = Bound(inside=(0.001, 0.999), outside=(0, 1))
FROM_0_TO_1 = Bound(inside=(0, 1), outside=(-TINY, 1.001))

OF_RECIPES = {
    "epochs": AT_LEAST_0,
    "finetune_epochs": AT_LEAST_0,
    "batch_size": AT_LEAST_1,
    "micro_batch_size": AT_LEAST_1,
    "lr": Bound(inside=(TINY,), outside=(0,), among="min_lr: 0"),
    "finetune_lr": Bound(inside=(TINY,), outside=(0,), among="min_lr: 0"),
    "min_lr": Bound(inside=(0,), outside=(-TINY,)),
    "warmup_epochs": Bound(inside=(0,), outside=(-TINY,)),
    "warmup_lr": Bound(inside=(0,), outside=(-TINY,)),
    "cooldown_epochs": AT_LEAST_0,
    "weight_decay": Bound(inside=(0,), outside=(-TINY,)),
    "layer_decay": Bound(inside=(TINY, 1), outside=(0, 1.001)),
    "opt_eps": ABOVE_0,
    "bce_threshold": FROM_0_BELOW_1,
    "drop_path": FROM_0_BELOW_1,
    "betas": Bound(inside=([0, 0.999],), outside=([-TINY, 0.9], [0.9, 1])),
    "momentum": FROM_0_BELOW_1,
    "label_smoothing": FROM_0_BELOW_1,
    "clip_grad": ABOVE_0,
    "ema": BETWEEN_0_AND_1,
    "mesa": Bound(inside=(0, 0.5), outside=(-TINY,), among="ema: 0.9"),
    "mesa_start": FROM_0_BELOW_1,
    "color_jitter": ABOVE_0,
    "random_erase": FROM_0_TO_1,
    "random_erase_count": Bound(inside=(1,), outside=(0,), among="random_erase: 0.5"),
    "mixup": AT_LEAST_0,
    "cutmix": AT_LEAST_0,
    "mixup_prob": Bound(inside=(0, 1), outside=(-TINY, 1.001), among="mixup: 1"),
    "mixup_switch_prob": Bound(inside=(0, 1), outside=(-TINY, 1.001), among="mixup: 1, cutmix: 1"),
    "mixup_off_epoch": Bound(inside=(1,), outside=(0,), among="mixup: 1"),
    "repeated_augment": AT_LEAST_1,
}
OF_DATA = {
    "img_size": AT_LEAST_1,
    "val_fraction": BETWEEN_0_AND_1,
    "split_seed": AT_LEAST_0,
    "samples": Bound(inside=(4,), outside=(3,), among="classes: 2, val_fraction: 0.5"),  # of which a validation split is left
    "classes": Bound(inside=(2,), outside=(1,)),
    "shift_px": Bound(inside=(0, 31), outside=(-1, 32), among="augment: shift"),
    "crop_scale": Bound(inside=([TINY, 1], [0.5, 0.5]), outside=([0, 1], [0.5, 1.001], [0.6, 0.5])),
    "eval_crop": Bound(inside=(TINY, 1), outside=(0, 1.001)),
    "max_resolution": Bound(inside=(16,), outside=(15,), among="img_size: 16"),
}
OF_CLUSTERS = {
    "max_parallel": AT_LEAST_1,
    "nodes": AT_LEAST_1,
    "tasks_per_node": AT_LEAST_1,
    "cpus_per_task": AT_LEAST_1,
    "gpus_per_node": AT_LEAST_0,
    "mem_gb": ABOVE_0,
    "timeout_min": AT_LEAST_1,
    "stages_per_job": AT_LEAST_1,
    "checkpoint_steps": AT_LEAST_1,
    "profile_s": ABOVE_0,
    "profile_batch": AT_LEAST_1,
}
BOUNDS = [
    (section, field, bound) for section, of in (("recipe", OF_RECIPES), ("data", OF_DATA), ("cluster", OF_CLUSTERS)) for field, bound in of.items()
]
INSIDE = [(section, field, value, bound.among) for section, field, bound in BOUNDS for value in bound.inside]
OUTSIDE = [(section, field, value, bound.among) for section, field, bound in BOUNDS for value in bound.outside]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def grid(section: str, field: str, value: Any, among: str) -> str:
    """A grid whose sixth line sets one field."""
    start = {"recipe": "", "data": "recipe: {batch_size: 1}\n", "cluster": ""}[section]
    given = ", ".join(filter(None, (f"{field}: {value}", "source: synthetic" if section == "data" else "", among)))
    return START + (start or "x-nothing: 0\n") + f"{section}: {{{given}}}\n"


def data_of(field: str, value: Any, among: str) -> DataSpec:
    """The same data set for a caller of `check_data`."""
    others = dict(pair.split(": ") for pair in among.split(", ") if pair)
    others = {name: yaml.safe_load(text) for name, text in others.items()}
    return DataSpec(source="synthetic", loader="torch", **{field: tuple(value) if isinstance(value, list) else value, **others})


@pytest.mark.parametrize("section, field, value, among", INSIDE)
def test_a_grid_takes_a_value_just_inside_its_bound(section: str, field: str, value: Any, among: str) -> None:
    assert read(grid(section, field, value, among)).cells


@pytest.mark.parametrize("section, field, value, among", OUTSIDE)
def test_a_grid_refuses_a_value_just_outside_its_bound_by_line_and_key(section: str, field: str, value: Any, among: str) -> None:
    (mistake,) = mistakes(grid(section, field, value, among))
    assert mistake.startswith(f"grid.yaml:6: {section}.{field}: must be ")


@pytest.mark.parametrize("field, value, among", [given[1:] for given in INSIDE if given[0] == "data"])
def test_the_datas_door_takes_what_a_grid_takes(field: str, value: Any, among: str) -> None:
    assert check_data(data_of(field, value, among)) == []


@pytest.mark.parametrize("field, value, among", [given[1:] for given in OUTSIDE if given[0] == "data"])
def test_the_datas_door_refuses_what_a_grid_refuses_in_the_same_words(field: str, value: Any, among: str) -> None:
    (problem,) = check_data(data_of(field, value, among))
    (mistake,) = mistakes(grid("data", field, value, among))
    rule = mistake.partition(f"data.{field}: ")[2].rpartition(", got ")[0]
    assert problem == f"data.{field} is {value}: it {rule}"


@pytest.mark.parametrize(
    ("spec", "limits", "bounds"), [(RecipeSpec, RECIPE, OF_RECIPES), (DataSpec, DATA, OF_DATA), (ClusterSpec, CLUSTER, OF_CLUSTERS)]
)
def test_every_number_has_a_bound_and_every_bound_is_tried(spec: type, limits: dict[str, Any], bounds: dict[str, Bound]) -> None:
    numbers = {name for name, hint in fields_of(spec).items() if {int, float} & {hint, *typing.get_args(hint)}}
    assert numbers == set(limits) == set(bounds)


def test_a_path_is_needed_refused_or_taken_as_the_source_says() -> None:
    assert check_data(DataSpec(source="digits", loader="torch", path="x")) == ["data.path: source digits takes no path"]
    (problem,) = check_data(DataSpec(source="cifar10", loader="torch"))
    assert problem.startswith("data.path is not set: ")


@pytest.mark.parametrize(
    ("batch", "micro", "ranks", "conflict"),
    [
        (64, None, 1, None),
        (64, 16, 4, None),
        (63, None, 2, "63 cannot be divided by 2 ranks; use a multiple of 2"),
        (64, 12, 2, "64 cannot be divided by 2 ranks x micro_batch_size 12; use a multiple of 24"),
    ],
)
def test_a_batch_must_divide_into_micro_batches_on_all_ranks(batch: int, micro: int | None, ranks: int, conflict: str | None) -> None:
    assert batch_conflict(batch, micro, ranks) == conflict


def test_lamb_works_on_whole_layers_only() -> None:
    assert lamb_conflict(RecipeSpec(optimizer="lamb")) is None and lamb_conflict(RecipeSpec(zero_stage=3)) is None
    conflict = lamb_conflict(RecipeSpec(optimizer="lamb", zero_stage=1))
    assert conflict is not None and conflict.endswith("zero_stage 1 cuts layers across ranks; only 0 is valid")


def test_images_are_counted_without_files_if_the_source_has_a_fixed_number() -> None:
    assert training_images(DataSpec()) == 1294
    assert training_images(DataSpec(source="synthetic", samples=100, val_fraction=0.25)) == 75
    assert training_images(DataSpec(source="imagefolder", path="x")) is None


def test_a_batch_is_oversized_only_if_the_images_are_known_to_be_fewer() -> None:
    assert oversized_batch(RecipeSpec(batch_size=1294), DataSpec(), 1294) is None
    assert "2048 is more than the 1294 training images" in str(oversized_batch(RecipeSpec(batch_size=2048), DataSpec(), 1294))
    assert oversized_batch(RecipeSpec(batch_size=10**6), DataSpec(source="imagefolder", path="x"), None) is None


def test_a_rewind_is_unreachable_beyond_the_last_step() -> None:
    method, budget = create_method("iterative_magnitude", rounds=1, rewind_step=40), Budget(epochs=2, finetune_epochs=1)
    assert unreachable_rewind(method, budget, 20) is None
    assert unreachable_rewind(method, budget, 19) == "rewinds to step 40, but train ends at step 38"


@pytest.mark.parametrize(
    ("given", "mistake"),
    [
        (
            "epochs: 10, warmup_epochs: 4, cooldown_epochs: 7",
            "cooldown_epochs: warm-up and cool-down, 4 and 7 epochs, are longer than the training, 10",
        ),
        ("mesa: 0.5", "mesa: it holds the network to its average: give ema, or leave mesa out"),
        ("lr: 0.001, warmup_lr: 0.002", "warmup_lr: 0.002 is above lr, 0.001"),
        ("optimizer: sgd, momentum: 0, nesterov: true", "nesterov: it needs a momentum above 0"),
    ],
)
def test_fields_of_a_recipe_that_contradict_each_other_are_refused(given: str, mistake: str) -> None:
    assert mistakes(START + f"recipe: {{{given}}}\n") == [f"grid.yaml:5: recipe.{mistake}"]
