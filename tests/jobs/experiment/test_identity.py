"""Ids: pinned for ever, blind to defaults and to what decides nothing, different for what decides a result."""

import hashlib
import json
from dataclasses import dataclass, replace

import pytest

from harness.plan.stages import make_graph
from jobs.experiment.cell import Cell
from jobs.experiment.identity import (
    canonical,
    cell_id,
    changed,
    data_identity,
    digest,
    method_identity,
    model_identity,
    plain,
    recipe_identity,
    stage_identity,
    stage_recipe_identity,
)
from jobs.experiment.specs import DataSpec, ModelSpec, RecipeSpec
from models.pruning.base import PruningMethod, Stage
from models.pruning.dense import Dense
from models.pruning.dynamic import Dynamic
from models.pruning.magnitude import Magnitude


def make_cell(
    model: ModelSpec | None = None,
    method: PruningMethod | None = None,
    data: DataSpec | None = None,
    recipe: RecipeSpec | None = None,
    seed: int = 0,
) -> Cell:
    """A cell with its id; the default one is dense vim_micro on digits."""
    model, method = model or ModelSpec(name="vim_micro", label="vim_micro"), method or Dense()
    data, recipe = data or DataSpec(), recipe or RecipeSpec()
    parts = (model_identity(model), method_identity(method), data_identity(data), recipe_identity(recipe))
    return Cell(id=cell_id(*map(canonical, parts), seed), model=model, method=method, data=data, recipe=recipe, seed=seed)


SE = ModelSpec(name="vim_micro", options={"se": {"ratio": 2}}, label="vim_micro+se")
GOLDEN_CELLS = {
    "default": (make_cell(), "ca7c7feec2dd"),
    "seed": (make_cell(seed=7), "55375ae32af5"),
    "options": (make_cell(model=SE), "8550d1823415"),
    "knobs": (make_cell(method=Magnitude(sparsity=0.9, scope="layer")), "151590b2f832"),
    "dynamic": (make_cell(method=Dynamic(sparsity=0.5, schedule="cubic")), "fdd779dd5843"),
    "data": (make_cell(data=DataSpec(source="imagefolder", path="/data/in1k", name="in1k", crop_scale=(0.2, 1.0))), "9a7a4f31b423"),
    "recipe": (make_cell(recipe=RecipeSpec(epochs=300, lr=5e-4, betas=(0.9, 0.95), dtype="bf16")), "15388d8d833d"),
}


@pytest.mark.parametrize("cell, golden", GOLDEN_CELLS.values(), ids=GOLDEN_CELLS)
def test_ids_of_cells_never_change(cell: Cell, golden: str) -> None:
    assert cell.id == golden


def test_ids_of_stages_never_change() -> None:
    plan = make_graph([make_cell(), make_cell(method=Magnitude(sparsity=0.9))])
    golden = [("train", "bb9dc0988474"), ("finetune", "9b9af18a816d"), ("finetune", "56cadd936d5b")]
    assert [(spec.stage.name, spec.id) for spec in plan.stages.values()] == golden


def test_a_cell_is_the_sha256_of_plain_json() -> None:
    cell = make_cell(method=Magnitude(sparsity=0.9), recipe=RecipeSpec(epochs=3), seed=5)
    written = (
        '{"data":{},"method":{"knobs":{"sparsity":0.9},"name":"magnitude"},"model":{"name":"vim_micro","options":{}},"recipe":{"epochs":3},"seed":5}'
    )
    assert cell.id == hashlib.sha256(written.encode()).hexdigest()[:12]


def test_a_field_at_its_default_is_left_out_so_that_a_new_field_keeps_old_ids() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Old:
        epochs: int = 3

    @dataclass(frozen=True, kw_only=True)
    class New(Old):
        tricks: tuple[str, ...] = ()

    assert changed(Old(epochs=4)) == changed(New(epochs=4)) == {"epochs": 4}
    assert changed(New(epochs=4, tricks=("mixup",))) == {"epochs": 4, "tricks": ["mixup"]}


@pytest.mark.parametrize("options", [{}, {"depth": 4}, {"se": None}, {"dim": 64, "patch_size": 4}])
def test_options_equal_to_the_preset_are_left_out(options: dict[str, object]) -> None:
    assert make_cell(model=ModelSpec(name="vim_micro", options=options, label="x")).id == make_cell().id


def test_a_label_enters_no_id() -> None:
    assert make_cell(model=ModelSpec(name="vim_micro", label="mine")).id == make_cell().id


def test_one_and_one_point_zero_are_the_same_number_in_a_float_field() -> None:
    assert make_cell(recipe=RecipeSpec(lr=1)).id == make_cell(recipe=RecipeSpec(lr=1.0)).id
    assert make_cell(recipe=RecipeSpec(clip_grad=5)).id == make_cell(recipe=RecipeSpec(clip_grad=5.0)).id
    assert make_cell(data=DataSpec(crop_scale=(0.5, 1))).id == make_cell(data=DataSpec(crop_scale=(0.5, 1.0))).id


def test_a_set_that_has_a_name_may_lie_anywhere() -> None:
    here = DataSpec(source="imagefolder", path="/scratch/imagenet", name="imagenet")
    there = DataSpec(source="imagefolder", path="/data/imagenet", test_path="/data/val", name="imagenet")
    assert make_cell(data=here).id == make_cell(data=there).id
    assert make_cell(data=replace(here, name=None)).id != make_cell(data=replace(there, name=None, test_path=None)).id


DIFFERENT = [
    make_cell(),
    make_cell(seed=1),
    make_cell(model=SE),
    make_cell(model=ModelSpec(name="vim_tiny", label="vim_micro")),
    make_cell(method=Magnitude(sparsity=0.5)),
    make_cell(method=Magnitude(sparsity=0.50001)),
    make_cell(method=Dynamic(sparsity=0.5)),
    make_cell(data=DataSpec(loader="torch")),
    make_cell(data=DataSpec(flip=True)),
    make_cell(recipe=RecipeSpec(epochs=13)),
    make_cell(recipe=RecipeSpec(finetune_epochs=13)),
    make_cell(recipe=RecipeSpec(ema=0.99)),
    make_cell(recipe=RecipeSpec(zero_stage=1)),
]


def test_whatever_decides_a_result_changes_the_id() -> None:
    assert len({cell.id for cell in DIFFERENT}) == len(DIFFERENT)


def test_canonical_json_does_not_depend_on_order() -> None:
    assert canonical({"b": 1, "a": [1.5, None]}) == canonical({"a": [1.5, None], "b": 1}) == '{"a":[1.5,null],"b":1}'


def test_numbers_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError):
        canonical({"lr": float("nan")})


def test_minus_zero_is_zero() -> None:
    assert canonical(plain(-0.0)) == "0.0"


def test_an_id_has_twelve_hexadecimal_digits() -> None:
    assert digest("") == hashlib.sha256(b"").hexdigest()[:12]


def test_a_fine_tuning_rate_decides_fine_tuning_alone() -> None:
    recipe = RecipeSpec(epochs=3, finetune_epochs=9, finetune_lr=1e-5, lr=0.1)
    assert stage_recipe_identity(recipe, "train") == {"lr": 0.1}
    assert stage_recipe_identity(recipe, "finetune") == {"lr": 0.1, "finetune_lr": 1e-5}


def test_a_stage_is_named_with_the_method_that_acts_in_it() -> None:
    stage = Stage(name="finetune", epochs=2, schedule="finetune", start="parent", method=Magnitude(sparsity=0.5))
    assert stage_identity(stage) == {
        "name": "finetune",
        "epochs": 2,
        "schedule": "finetune",
        "start": "parent",
        "method": {"name": "magnitude", "knobs": {"sparsity": 0.5}},
    }


@pytest.mark.parametrize("cell", DIFFERENT, ids=str)
def test_a_cell_comes_back_from_its_json_with_its_id(cell: Cell) -> None:
    stored = json.loads(json.dumps(cell.to_json()))
    assert stored == cell.to_json()
    back = Cell.from_json(stored)
    assert back.id == cell.id and back.method == cell.method and back.data == cell.data and back.recipe == cell.recipe


def test_json_has_every_field_those_at_their_default_too() -> None:
    stored = make_cell(method=Magnitude(sparsity=0.5)).to_json()
    assert stored["recipe"]["weight_decay"] == 0.05 and stored["data"]["crop_scale"] == [0.08, 1.0]
    assert stored["pruning"]["knobs"]["scope"] == "global" and stored["model"]["options"]["depth"] == 4


def test_a_field_of_another_version_is_refused_by_name() -> None:
    stored = make_cell().to_json()
    stored["recipe"]["lookahead"] = 5
    with pytest.raises(ValueError, match="RecipeSpec.lookahead: unknown field"):
        Cell.from_json(stored)


def test_a_method_of_another_version_is_refused_by_name() -> None:
    stored = make_cell().to_json()
    stored["pruning"]["method"] = "magnitud"
    with pytest.raises(ValueError, match="unknown method 'magnitud'; did you mean 'magnitude'"):
        Cell.from_json(stored)
