"""Keys: which rows are ranked together."""

from dataclasses import fields, replace
from typing import Any

import pytest

from analysis.comparability import Key, differing, digest, row_and_key, same_but_seed, unlabelled
from analysis.decoding import stored_record
from jobs.experiment.identity import OF_0_2, PATHS, plain
from jobs.experiment.records import Environment, Metrics, Record
from jobs.experiment.specs import DataSpec, RecipeSpec
from tests.support.cells import make_cell
from tests.support.records import fake_environment, fake_record, fake_spec, rows_of

DATA, RECIPE = plain(DataSpec(loader="torch", name="a", img_size=32)), plain(RecipeSpec())
OF_MACHINE = {"data_sha256": "data_sha256", "cpu": "device", "gpu": "device", **{name: name for name in ("ranks", "threads", "loader", "scan")}}
OF_MEASURING = {"throughput_batch": "infer_batch_size", "flops_convention": "flops_convention", "speed_protocol": "speed_protocol"}
OF_RECIPE = {"batch_size": "batch_size", "dtype": "dtype", "epochs": "epochs", "finetune_epochs": "epochs"}  # the others are in the hash alone


def other(value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, dict):
        return {**value, "more": "x"}
    return [*value, 1.0] if isinstance(value, list) else "x" if value is None else f"{value}x"


def full_record(**changes: Any) -> Record:
    """A record with every setting of data and recipe. `changes`: of it, by field, or by part and field."""
    record = fake_record(97, spec=fake_spec("dense", 0) | {"data": DATA, "recipe": RECIPE})
    content = record.model_dump(mode="json")
    for name, value in changes.items():
        part, _, field = name.partition(".")
        (content["spec"] if part in content["spec"] else content)[part][field] = value
    return Record.model_validate(content)


def keys_of(record: Record) -> tuple[Key, Key]:
    """A record's key as it was made from a record of pydantic's, and from the texts of a stored one."""
    return row_and_key(record)[1], row_and_key(stored_record(record.model_dump_json().encode()))[1]


def fields_that_differ(name: str) -> set[str]:
    """The fields of the key that a change of a record's field changes."""
    part, _, field = name.partition(".")
    plain_record = full_record()
    content = plain_record.model_dump(mode="json")
    value = (content["spec"] if part in content["spec"] else content)[part][field]
    ours, theirs = keys_of(plain_record), keys_of(full_record(**{name: other(value)}))
    assert ours[0] == ours[1] and theirs[0] == theirs[1]
    differ = set(differing([ours[0], theirs[0]]))
    assert (ours[0].short == theirs[0].short) == (not differ)
    return differ


@pytest.mark.parametrize("field", [field.name for field in fields(Key)])
def test_every_field_of_a_key_tells_rows_apart(field: str) -> None:
    key = row_and_key(full_record())[1]
    changed = replace(key, **{field: other(getattr(key, field))})
    assert key.short != changed.short and differing([key, changed]) == (field,)


@pytest.mark.parametrize("field", sorted(DATA))
def test_every_setting_of_the_data_is_part_of_the_key_but_where_they_lie(field: str) -> None:
    assert fields_that_differ(f"data.{field}") == (set() if field in PATHS else {"data"})


@pytest.mark.parametrize("field", sorted(RECIPE))
def test_every_setting_of_the_recipe_is_part_of_the_key(field: str) -> None:
    assert fields_that_differ(f"recipe.{field}") == {"recipe", *({OF_RECIPE[field]} if field in OF_RECIPE else ())}


@pytest.mark.parametrize("field", Environment.model_fields)
def test_of_a_machine_the_key_has_all_that_changes_numbers(field: str) -> None:
    assert fields_that_differ(f"environment.{field}") == ({OF_MACHINE[field]} if field in OF_MACHINE else set())


@pytest.mark.parametrize("field", Metrics.model_fields)
def test_of_a_measurement_the_key_has_how_it_was_made_and_no_result(field: str) -> None:
    ours = full_record()
    assert ours.metrics is not None
    changed = ours.metrics.model_copy(update={field: other(getattr(ours.metrics, field))})
    differ = differing([row_and_key(record)[1] for record in (ours, ours.model_copy(update={"metrics": changed}))])
    assert differ == ((OF_MEASURING[field],) if field in OF_MEASURING else ())


def test_the_loops_reach_every_field_of_a_key() -> None:
    assert {"data", "recipe", *OF_MACHINE.values(), *OF_MEASURING.values(), *OF_RECIPE.values()} == {field.name for field in fields(Key)}


def test_rows_of_different_keys_are_ranked_apart() -> None:
    rows = rows_of(fake_record(97), fake_record(95, model="b", environment=fake_environment(ranks=2)))
    assert [row.rank for row in rows] == [1, 1] and len({row.key.short for row in rows}) == 2


@pytest.mark.parametrize("part", ["model", "pruning", "data", "recipe"])
def test_every_field_of_a_spec_makes_another_row_but_labels_and_paths(part: str) -> None:
    spec = full_record().spec
    decides = {field: same_but_seed(spec | {part: spec[part] | {field: other(value)}}) != same_but_seed(spec) for field, value in spec[part].items()}
    ignored = {"model": {"label"}, "pruning": {"label"}, "data": set(PATHS), "recipe": set()}[part]
    assert {field for field, does in decides.items() if not does} == ignored


def test_where_the_data_lie_does_not_tell_rows_apart() -> None:
    spec = fake_spec("dense", 1)
    moved = fake_record(95, seed=1, spec=spec | {"data": spec["data"] | {"path": "/elsewhere"}})
    assert [len(row.done) for row in rows_of(fake_record(97), moved)] == [2]


def test_trainings_of_two_protocols_share_neither_row_nor_key() -> None:
    cell = make_cell(recipe=RecipeSpec(dtype="bf16"))
    spec = cell.to_json()
    before = {**spec, "recipe": {name: value for name, value in spec["recipe"].items() if name != "protocol"}}
    (row, key), (old_row, old_key) = (row_and_key(fake_record(97, spec=part)) for part in (spec, before))
    assert row != old_row and key != old_key and differing([key, old_key]) == ("recipe",)


def test_cells_of_a_row_differ_in_the_seed_alone() -> None:
    spec = fake_spec("magnitude-0.5", 0)
    same = [spec | {"seed": 7}, spec | {"model": spec["model"] | {"label": "another"}}, spec | {"data": spec["data"] | {"test_path": "/elsewhere"}}]
    other = [spec | {"model": spec["model"] | {"name": "another"}}, spec | {"recipe": spec["recipe"] | {"lr": 1.0}}, fake_spec("magnitude-0.6", 0)]
    assert {same_but_seed(changed) for changed in same} == {same_but_seed(spec)}
    assert len({same_but_seed(changed) for changed in [spec, *other]}) == 4


def test_a_label_is_not_a_setting() -> None:
    assert unlabelled({"label": "x", "name": "vim"}) == {"name": "vim"} and unlabelled("dense") == "dense" and unlabelled(None) is None


def test_the_fields_in_which_keys_differ_are_named_in_the_keys_sequence() -> None:
    keys = [
        row_and_key(fake_record(90.0, environment=fake_environment(threads=threads, loader=loader)))[1] for threads, loader in ((1, "a"), (2, "b"))
    ]
    assert differing(keys) == ("threads", "loader") and differing(keys[:1]) == ()
    assert len({key.short for key in keys}) == 2 and all(len(key.short) == 6 for key in keys)


def test_a_failed_cell_has_no_measuring_protocol() -> None:
    _, key = row_and_key(fake_record(None))
    assert (key.infer_batch_size, key.flops_convention, key.speed_protocol) == (None, None, None)


def test_a_digest_does_not_depend_on_the_sequence_of_keys() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1, "b": [3]})


def of_model(name: str, **data: Any) -> Record:
    """A record of an official checkpoint with this evaluation."""
    model = {"name": name, "options": {"pretrained": "w.pth"}, "label": name}
    return fake_record(80, model=name, spec=fake_spec("dense", 0) | {"model": model, "data": DATA | {"interpolation": "bicubic"} | data})


def test_official_checkpoints_under_their_published_evaluations_are_ranked_together() -> None:
    one, other = (keys_of(of_model(name, eval_crop=crop)) for name, crop in (("mambavision_t", 1.0), ("mambavision_s", 0.93)))
    assert one[0] == one[1] == other[0] == other[1]


def test_an_evaluation_of_ones_own_is_ranked_apart() -> None:
    keys = [keys_of(of_model("mambavision_s", eval_crop=crop))[0] for crop in (0.93, 1.0, 0.9)]
    assert len(set(keys)) == 3 and differing(keys) == ("data",)


def test_a_record_of_0_2_and_one_of_today_have_one_key() -> None:
    today = full_record()
    older = {part: {name: value for name, value in today.spec[part].items() if name in known} for part, (_, known) in OF_0_2.items()}
    assert all(len(older[part]) < len(today.spec[part]) for part in older)
    assert row_and_key(today.model_copy(update={"spec": today.spec | older})) == row_and_key(today)
    assert row_and_key(full_record(**{"recipe.mixup": 0.8})) != row_and_key(today)
