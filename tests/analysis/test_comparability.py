"""Keys: which rows are ranked together."""

import pytest

from analysis.comparability import differing, digest, row_and_key, same_but_seed, unlabelled
from tests.support.records import fake_environment, fake_record, fake_spec, rows_of


@pytest.mark.parametrize("change", ["device", "loader", "dtype", "batch_size", "recipe", "measuring", "protocol", "threads", "data"])
def test_rows_of_different_keys_are_ranked_apart(change: str) -> None:
    ours = fake_record(97)
    other = {
        "device": lambda: fake_record(95, model="b", environment=fake_environment(gpu="Example GPU")),
        "loader": lambda: fake_record(95, model="b", environment=fake_environment(loader="torch")),
        "threads": lambda: fake_record(95, model="b", environment=fake_environment(threads=8)),
        "data": lambda: fake_record(95, model="b", environment=fake_environment(data_sha256="e" * 64)),
        "dtype": lambda: fake_record(95, model="b", spec=fake_spec("dense", 0, dtype="bf16")),
        "batch_size": lambda: fake_record(95, model="b", spec=fake_spec("dense", 0, batch_size=128)),
        "recipe": lambda: fake_record(95, model="b", spec=fake_spec("dense", 0, lr=1e-4)),
        "protocol": lambda: fake_record(95, model="b", speed_protocol="forward pass, bf16, batch 1 and 64"),
        "measuring": lambda: fake_record(95, model="b", throughput_batch=8),
    }[change]()
    rows = rows_of(ours, other)
    assert [row.rank for row in rows] == [1, 1] and len({row.key.short for row in rows}) == 2


def test_where_the_data_lie_does_not_tell_rows_apart() -> None:
    spec = fake_spec("dense", 1)
    moved = fake_record(95, seed=1, spec=spec | {"data": spec["data"] | {"path": "/elsewhere"}})
    assert [len(row.done) for row in rows_of(fake_record(97), moved)] == [2]


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
