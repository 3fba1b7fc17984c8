"""Ids never change; defaults and settings that decide nothing do not enter them; every other setting does."""

import hashlib
from dataclasses import dataclass, replace

import pytest

from harness.plan.stages import make_graph
from jobs.experiment.cell import Cell
from jobs.experiment.identity import canonical, changed, digest, plain, result_settings, stage_identity, stage_recipe_identity
from jobs.experiment.specs import DataSpec, ModelSpec, RecipeSpec
from models.pruning.base import Stage
from models.pruning.dynamic import Dynamic
from models.pruning.magnitude import Magnitude
from tests.support.cells import DIFFERENT, SE, make_cell

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


def test_labels_and_paths_of_data_do_not_decide_a_result() -> None:
    here = make_cell(model=ModelSpec(name="vim_micro", label="mine"), data=DataSpec(source="cifar10", path="/a", name="cifar")).to_json()
    there = make_cell(data=DataSpec(source="cifar10", path="/b", name="cifar")).to_json()
    assert here != there and result_settings(here) == result_settings(there)


def test_every_other_setting_decides_a_result_at_its_default_too() -> None:
    specs = [result_settings(cell.to_json()) for cell in DIFFERENT]
    assert all(specs.index(spec) == index for index, spec in enumerate(specs))
    older = make_cell().to_json()
    older["recipe"]["weight_decay"] = 0.5  # as if this had been the default
    assert result_settings(older) != result_settings(make_cell().to_json())


def test_parts_that_are_no_mappings_are_kept() -> None:
    assert result_settings({"model": None, "data": 3, "seed": 0}) == {"model": None, "data": 3, "seed": 0}


def pretrained(path: str, content: str | None, **options: object) -> Cell:
    given = {"pretrained": path, **options}
    return make_cell(model=ModelSpec(name="vim_micro", options=given, label="x", pretrained_sha256=content and content * 64))


def test_a_pretrained_file_is_known_by_its_content_and_not_by_its_path() -> None:
    assert pretrained("/a.pth", "1").id == pretrained("/b.pth", "1").id
    assert pretrained("/a.pth", "1").id != pretrained("/a.pth", "2").id
    assert pretrained("/a.pth", "1").id != pretrained("/a.pth", "1", pretrained_key="model_ema").id
    assert result_settings(pretrained("/a.pth", "1").to_json()) == result_settings(pretrained("/b.pth", "1").to_json())
    assert result_settings(pretrained("/a.pth", "1").to_json()) != result_settings(pretrained("/a.pth", "2").to_json())
    assert len({stage for path in ("/a.pth", "/b.pth") for stage in make_graph([pretrained(path, "1")]).stages}) == 2  # train and finetune


def test_a_record_of_0_1_keeps_the_id_that_holds_the_path() -> None:
    cell = pretrained("w.pth", None)
    assert cell.id == "7e4ba0dee387"
    assert Cell.from_json(cell.to_json()).id == cell.id
    assert "pretrained_sha256" not in cell.to_json()["model"]
    assert Cell.from_json(pretrained("w.pth", "1").to_json()) == pretrained("w.pth", "1")


def test_an_option_that_is_null_is_equal_to_an_option_that_is_not_there() -> None:
    older = make_cell().to_json()
    del older["model"]["options"]["pretrained_key"]
    assert result_settings(older) == result_settings(make_cell().to_json())
