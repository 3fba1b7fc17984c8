"""Files that are not records are skipped with a reason."""

import json
import re
from pathlib import Path

import pytest

from analysis.merge import merge
from analysis.validation import CHUNK, check_spec, outcome, read_bytes, stated_version
from tests.support.records import fake_record, fake_run


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"schema_version": 1, "id": "0', "torn, or not JSON"),
        ("", "torn, or not JSON"),
        ('{"hello": 1}', "not a record of schema 1: id: Field required"),
        ("[1, 2]", "not a record of schema 1: the whole file"),
        ("\x00\xff", "torn, or not JSON"),
    ],
)
def test_torn_and_foreign_files_are_listed_and_skipped(tmp_path: Path, content: str, reason: str) -> None:
    run = fake_run(tmp_path, [fake_record(97.0)])
    bad = run / "cells" / "bad" / "record.json"
    bad.parent.mkdir()
    bad.write_text(content, encoding="latin-1")
    merged = merge([run])
    assert len(merged.records) == 1
    assert [file.path for file in merged.skipped] == [bad]
    assert reason in merged.skipped[0].reason


def test_a_newer_schema_is_skipped_and_says_so(tmp_path: Path) -> None:
    record = fake_record(97.0)
    run = fake_run(tmp_path, [record, fake_record(96.0, seed=1)])
    path = run / "cells" / record.id / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 2, "novelty": 1}))
    assert "schema 2 is newer than 1" in merge([run]).skipped[0].reason


def test_an_older_schema_is_skipped_and_says_so(tmp_path: Path) -> None:
    record = fake_record(97.0)
    run = fake_run(tmp_path, [record, fake_record(96.0, seed=1)])
    path = run / "cells" / record.id / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 0}))
    assert "schema 0 is older than 1" in merge([run]).skipped[0].reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"metrics": None}, "without metrics"),
        ({"status": "failed"}, "without a reason"),
        ({"id": "another"}, "a record of cell another"),
    ],
)
def test_a_record_that_contradicts_itself_or_its_place_is_skipped(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    record = fake_record(97.0)
    run = fake_run(tmp_path, [record, fake_record(96.0, seed=1)])
    path = run / "cells" / record.id / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert reason in merge([run]).skipped[0].reason


@pytest.mark.parametrize("top1", [float("nan"), -1.0, 101.0])
def test_an_accuracy_that_is_no_percentage_is_skipped(tmp_path: Path, top1: float) -> None:
    run = fake_run(tmp_path, [fake_record(top1), fake_record(96.0, seed=1)])
    assert "not a percentage" in merge([run]).skipped[0].reason


@pytest.mark.parametrize(("name", "value"), [("train_cpu_h", float("nan")), ("latency_ms", float("inf")), ("layers", {"in_proj": float("nan")})])
def test_a_metric_that_no_mean_can_be_taken_of_is_skipped_and_an_infinite_loss_is_not(tmp_path: Path, name: str, value: object) -> None:
    run = fake_run(tmp_path, [fake_record(97.0, **{name: value}), fake_record(96.0, seed=1, test_loss=float("inf"), notes=["NaN, Infinity"])])
    merged = merge([run])
    assert [file.reason.endswith("not a finite number") for file in merged.skipped] == [True] and [r.seed for r in merged.records] == [1]


def test_the_word_nan_in_a_text_is_no_number(tmp_path: Path) -> None:
    run = fake_run(tmp_path, [fake_record(97.0, notes=["NaN, Infinity"])])
    assert merge([run]).skipped == ()


def test_a_number_beyond_all_floats_is_skipped(tmp_path: Path) -> None:
    record = fake_record(97.0)
    run = fake_run(tmp_path, [record, fake_record(96.0, seed=1)])
    path = run / "cells" / record.id / "record.json"
    path.write_text(re.sub(r'"latency_ms": *[0-9.]+', '"latency_ms": 1e999', path.read_text()))
    assert "latency_ms is inf, not a finite number" in merge([run]).skipped[0].reason


@pytest.mark.parametrize("spec", [{}, {"data": None}, {"pruning": "dense"}, {"pruning": {"method": "dense", "knobs": 3}}])
def test_a_record_whose_spec_says_too_little_is_skipped(tmp_path: Path, spec: dict[str, object]) -> None:
    record = fake_record(97.0)
    run = fake_run(tmp_path, [record, fake_record(96.0, seed=1)])
    path = run / "cells" / record.id / "record.json"
    whole = json.loads(path.read_text())
    path.write_text(json.dumps(whole | {"spec": whole["spec"] | spec if spec else {}}))
    merged = merge([run])
    assert len(merged.records) == 1 and "its spec has no" in merged.skipped[0].reason


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_a_file_is_read_whole_whatever_its_size(tmp_path: Path, size: int) -> None:
    content = bytes(range(251)) * (size // 251 + 1)
    (tmp_path / "file").write_bytes(content[:size])
    assert read_bytes(str(tmp_path / "file")) == content[:size]


def test_two_runs_of_a_cell_must_agree_in_accuracy_loss_and_weights() -> None:
    assert outcome(fake_record(97.0)) == "top1 97.0, test loss 0.5, weights aaaaaaaaaaaa" and outcome(fake_record(None)) == "no result"


@pytest.mark.parametrize("spec", [None, [], {}, {"model": {}, "pruning": {}, "data": {}, "recipe": {}, "seed": 0}])
def test_a_spec_needs_its_parts_a_method_and_a_seed(spec: object) -> None:
    with pytest.raises(ValueError, match="its spec has no"):
        check_spec(spec)


@pytest.mark.parametrize(("content", "version"), [('{"schema_version": 3}', 3), ("{}", None), ("[]", None)])
def test_the_schema_that_a_file_states_is_read(tmp_path: Path, content: str, version: int | None) -> None:
    (tmp_path / "record.json").write_text(content)
    assert stated_version(str(tmp_path / "record.json")) == version


@pytest.mark.parametrize("name", [b"caf\xe9", b"caf\\udce9"])
def test_a_record_with_text_that_is_no_utf_8_counts(tmp_path: Path, name: bytes) -> None:
    """As an older version wrote it: in the environment, and within the spec."""
    record = fake_record(97.0)
    run = fake_run(tmp_path, [record])
    path = run / "cells" / record.id / "record.json"
    content = json.loads(path.read_text())
    content["environment"]["host"] = content["spec"]["data"]["path"] = "NAME"
    path.write_bytes(json.dumps(content).encode().replace(b"NAME", name))
    merged = merge([run], tmp_path / "store")
    assert not merged.skipped and merged.records[0].environment.host == merged.records[0].spec["data"]["path"] == "caf\\xe9"
