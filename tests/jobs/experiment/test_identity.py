"""Ids never change; defaults and settings that decide nothing do not enter them; every other setting does."""

import copy
import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args, get_origin

import pytest

from harness.plan.stages import make_graph
from jobs.experiment.cell import Cell
from jobs.experiment.identity import (
    OF_0_2,
    canonical,
    cell_id,
    changed,
    data_identity,
    digest,
    method_identity,
    model_identity,
    plain,
    recipe_identity,
    result_settings,
    stage_id,
    stage_identity,
    stage_recipe,
    stage_recipe_identity,
)
from jobs.experiment.ids import StageId
from jobs.experiment.specs import DataSpec, Distillation, ModelSpec, RecipeSpec
from models.pruning.base import PruningMethod, Stage
from models.pruning.dense import Dense
from models.pruning.dynamic import Dynamic
from models.pruning.iterative_magnitude import IterativeMagnitude
from models.pruning.magnitude import Magnitude
from models.pruning.registry import METHODS, create_method, required
from models.typed import fields_of, members
from tests.support.cells import DIFFERENT, SE, make_cell

GOLDEN_CELLS = {
    "default": (make_cell(), "ca7c7feec2dd"),
    "seed": (make_cell(seed=7), "55375ae32af5"),
    "options": (make_cell(model=SE), "8550d1823415"),
    "knobs": (make_cell(method=Magnitude(sparsity=0.9, scope="layer")), "151590b2f832"),
    "dynamic": (make_cell(method=Dynamic(sparsity=0.5, schedule="cubic")), "fdd779dd5843"),
    "data": (make_cell(data=DataSpec(source="imagefolder", path="/data/in1k", name="in1k", crop_scale=(0.2, 1.0))), "9a7a4f31b423"),
    "recipe": (make_cell(recipe=RecipeSpec(epochs=300, lr=5e-4, betas=(0.9, 0.95))), "7f66a7557f76"),
    "bf16": (make_cell(recipe=RecipeSpec(epochs=300, lr=5e-4, betas=(0.9, 0.95), dtype="bf16")), "90640167456d"),  # up to version 0.2: 15388d8d833d
}


@pytest.mark.parametrize("cell, golden", GOLDEN_CELLS.values(), ids=GOLDEN_CELLS)
def test_ids_of_cells_never_change(cell: Cell, golden: str) -> None:
    assert cell.id == golden


def test_in_bf16_the_training_protocol_is_part_of_every_id() -> None:
    """Versions up to 0.2 kept statistics and sums in bf16: its cells and stages are others."""
    recipe = RecipeSpec(dtype="bf16")
    protocol = {"protocol": "fp32 statistics and sums"}
    assert recipe_identity(recipe) == stage_recipe_identity(recipe, Stage(name="train", epochs=1)) == {"dtype": "bf16"} | protocol
    assert make_cell(recipe=recipe).to_json()["recipe"]["protocol"] == protocol["protocol"]
    assert recipe_identity(RecipeSpec()) == {} and "protocol" not in make_cell().to_json()["recipe"]


def test_ids_of_stages_never_change() -> None:
    plan = make_graph([make_cell(), make_cell(method=Magnitude(sparsity=0.9))])
    golden = [("train", "bb9dc0988474"), ("finetune", "9b9af18a816d"), ("finetune", "56cadd936d5b")]
    assert [(spec.stage.name, spec.id) for spec in plan.stages.values()] == golden


def test_ids_of_rewinding_stages_never_change() -> None:
    cell = make_cell(method=IterativeMagnitude(rounds=2, rewind_step=9))
    graph = make_graph([cell])
    golden = [
        ("train", "bb9dc0988474"),
        ("prune_1", "329c4a9ec4e8"),
        ("round_1", "c5fa662deadb"),
        ("prune_2", "058eaea046b4"),
        ("round_2", "8c105be55bca"),
    ]
    assert [(graph.stages[stage].stage.name, stage) for stage in graph.paths[cell.id]] == golden


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
    assert stage_recipe_identity(recipe, Stage(name="train", epochs=1)) == {"lr": 0.1}
    assert stage_recipe_identity(recipe, Stage(name="finetune", epochs=1, schedule="finetune")) == {"lr": 0.1, "finetune_lr": 1e-5}


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


def another(value: Any, hint: Any) -> Any:
    """A value that a field of this type may have, and that differs from `value`."""
    kinds = [kind for kind in members(hint) if kind is not type(None)]
    choices = [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind) if choice != value]
    if choices:
        return choices[0]
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return tuple(another(item, type(item)) for item in value) or (1,)
    if Distillation in kinds:
        return Distillation(teacher="dense")
    if value is None or isinstance(value, PruningMethod):
        return {str: "/somewhere", int: 3, float: 0.25, PruningMethod: Dense(), Any: {"of": "a plug-in"}}[kinds[0]]
    return f"{value}_2" if isinstance(value, str) else value * 2 + 1


def each_field_changed(value: Any) -> dict[str, Any]:
    """`value` with another value in one field, by that field. The values may be impossible together: an id asks for no sense."""
    results = {}
    for name, hint in fields_of(type(value)).items():
        results[name] = copy.copy(value)
        object.__setattr__(results[name], name, another(getattr(value, name), hint))
    assert set(results) == {field.name for field in dataclasses.fields(value) if field.init}
    return results


BASE = make_cell(method=Magnitude(sparsity=0.5), data=DataSpec(source="imagefolder", path="/data"))
CHANGED: dict[str, Cell] = {
    **{f"recipe.{name}": make_cell(method=BASE.method, data=BASE.data, recipe=recipe) for name, recipe in each_field_changed(BASE.recipe).items()},
    **{f"data.{name}": make_cell(method=BASE.method, data=data) for name, data in each_field_changed(BASE.data).items()},
    "model.name": make_cell(model=ModelSpec(name="vim_tiny", label="x"), method=BASE.method, data=BASE.data),
    "model.options": make_cell(model=ModelSpec(name="vim_micro", options={"depth": 3}, label="x"), method=BASE.method, data=BASE.data),
    "model.pretrained_sha256": make_cell(
        model=ModelSpec(name="vim_micro", label="x", pretrained_sha256="1" * 64), method=BASE.method, data=BASE.data
    ),
    "model.label": make_cell(model=ModelSpec(name="vim_micro", label="x"), method=BASE.method, data=BASE.data),
    "seed": make_cell(method=BASE.method, data=BASE.data, seed=1),
}
# The fields that decide less than the whole cell: only these ids change.
EXCEPTIONS: dict[str, set[str]] = {"model.label": set(), "recipe.finetune_epochs": {"cell", "finetune"}, "recipe.finetune_lr": {"cell", "finetune"}}
EXCEPTIONS["recipe.distill"] = {"cell", "finetune"}


def ids_of(cell: Cell) -> dict[str, str]:
    """The ids of a cell and of its stages."""
    graph = make_graph([cell])
    return {"cell": cell.id} | {graph.stages[stage].stage.name: stage for stage in graph.paths[cell.id]}


@pytest.mark.parametrize("field", CHANGED)
def test_every_field_changed_alone_changes_the_ids_of_the_cell_and_of_its_stages(field: str) -> None:
    before, after = ids_of(BASE), ids_of(CHANGED[field])
    assert before.keys() == after.keys() == {"cell", "train", "finetune"}
    assert {name for name in before if before[name] != after[name]} == EXCEPTIONS.get(field, {"cell", "train", "finetune"})


def test_every_field_of_a_spec_was_changed_or_is_a_part_of_the_model() -> None:
    parts = {"recipe": RecipeSpec, "data": DataSpec, "model": ModelSpec}
    assert {f"{part}.{name}" for part, spec in parts.items() for name in fields_of(spec)} | {"seed"} == set(CHANGED)


OWN_EXCEPTIONS = {"train": {"epochs", "finetune_epochs", "finetune_lr", "distill"}, "finetune": {"epochs", "finetune_epochs"}}


@pytest.mark.parametrize("schedule", OWN_EXCEPTIONS)
def test_every_field_of_a_recipe_decides_a_stage_by_itself_and_not_through_its_parent(schedule: Literal["train", "finetune"]) -> None:
    stage, texts = Stage(name="s", epochs=2, schedule=schedule), {}
    for name, recipe in {"": RecipeSpec(), **each_field_changed(RecipeSpec())}.items():
        texts[name] = stage_recipe_identity(recipe, stage)
        given = dataclasses.asdict(stage_recipe(recipe, stage))
        assert (given == dataclasses.asdict(stage_recipe(RecipeSpec(), stage))) == (texts[name] == texts[""]), "a stage is trained as it is named"
    assert {name for name, text in texts.items() if text == texts[""]} == {"", *OWN_EXCEPTIONS[schedule]}


def test_every_field_of_a_stage_decides_it_but_for_the_weights_that_it_keeps() -> None:
    stage = Stage(name="round_1", epochs=2, method=Magnitude(sparsity=0.5))
    assert {name for name, other in each_field_changed(stage).items() if stage_identity(other) == stage_identity(stage)} == {"keep_steps"}
    assert stage_identity(stage) != stage_identity(replace(stage, method=None)) != stage_identity(replace(stage, method=Magnitude(sparsity=0.6)))


@pytest.mark.parametrize("name", METHODS)
def test_every_knob_decides_a_method(name: str) -> None:
    needed = {"sparsity": 0.5, "rounds": 2, "ratio": 0.5, "r": 5}
    one_of_two = {"sparsegpt": {"sparsity": 0.5}, "block_removal": {"blocks": 2}}  # neither of the two is required alone
    knobs = {field.name: needed[field.name] for field in dataclasses.fields(METHODS[name]) if required(field)}
    method = create_method(name, **knobs, **one_of_two.get(name, {}))
    assert method_identity(method)["name"] == name
    for knob, other in each_field_changed(method).items():
        assert method_identity(other) != method_identity(method), knob


@pytest.mark.parametrize("make", [cell_id, stage_id])
def test_every_part_of_an_id_decides_it(make: Callable[..., str]) -> None:
    parts = {"model": "{}", "data": "{}", "recipe": "{}", "seed": 0}
    parts |= {"method": "{}"} if make is cell_id else {"stage": "{}", "parent": StageId("a"), "rewind": StageId("b")}
    others = [{**parts, name: 1 if name == "seed" else '{"a":1}'} for name in parts]
    if make is stage_id:
        others += [{**parts, "parent": None}, {**parts, "rewind": None}, {**parts, "parent": parts["rewind"], "rewind": parts["parent"]}]
    ids = [make(**each) for each in (parts, *others)]
    assert len(set(ids)) == len(ids)


def test_a_named_set_is_known_by_all_fields_but_its_paths() -> None:
    named = DataSpec(source="imagefolder", path="/data", name="in1k")
    same = {name for name, other in each_field_changed(named).items() if data_identity(other) == data_identity(named)}
    assert same == {"path", "test_path", "test_labels"}


def test_a_dense_model_of_another_name_or_option_is_another_model() -> None:
    assert method_identity(Dense()) == {"name": "dense", "knobs": {}}
    assert model_identity(ModelSpec(name="vim_micro", options={"drop_path": 0.1}, label="x"))["options"] == {"drop_path": 0.1}


def taught_by(path: str, digest: str | None, **distill: Any) -> Cell:
    """A cell whose teacher is a file with this content."""
    return make_cell(recipe=RecipeSpec(distill=Distillation(teacher=path, teacher_sha256=digest and digest * 64, **distill)))


def test_the_content_of_a_teachers_file_decides_a_cell_and_its_path_does_not() -> None:
    first, moved, other = taught_by("/a.pth", "1"), taught_by("/b.pth", "1"), taught_by("/a.pth", "2")
    assert first.id == moved.id != other.id
    assert result_settings(first.to_json()) == result_settings(moved.to_json()) != result_settings(other.to_json())
    assert len({cell.id for cell in (first, taught_by("/a.pth", "1", weight=0.3), taught_by("/a.pth", "1", temperature=4.0), make_cell())}) == 4
    assert Cell.from_json(json.loads(json.dumps(first.to_json()))) == first


def test_a_record_of_0_2_and_one_of_today_are_of_one_row() -> None:
    """A field that came later is at its default in a record that does not hold it."""
    for cell in (make_cell(), make_cell(recipe=RecipeSpec(lr=0.5), data=DataSpec(flip=True))):
        today: dict[str, Any] = dict(cell.to_json())
        older = today | {part: {name: value for name, value in today[part].items() if name in known} for part, (_, known) in OF_0_2.items()}
        assert older["recipe"] != today["recipe"] and result_settings(older) == result_settings(today)
    changed = make_cell(recipe=RecipeSpec(mixup=0.8)).to_json()
    assert result_settings(changed) != result_settings(make_cell().to_json())


def test_the_fields_of_0_2_are_there_still() -> None:
    assert all(known <= set(fields_of(spec)) for spec, known in OF_0_2.values())
