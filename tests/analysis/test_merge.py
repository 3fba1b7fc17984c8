import json
from pathlib import Path

import pytest

from analysis.columns import COLUMNS
from analysis.merge import AnalysisError, merge
from analysis.rows import make_rows
from jobs.experiment.records import Metrics
from tests.support.records import fake_environment, fake_record, fake_run


def test_records_of_several_folders_come_together(tmp_path: Path) -> None:
    a = fake_run(tmp_path / "a", [fake_record(97.0, seed=0)])
    b = fake_run(tmp_path / "b", [fake_record(96.0, seed=1)])
    assert sorted(record.seed for record in merge([a, b]).records) == [0, 1]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match="no such folder.*nowhere"):
        merge([tmp_path / "nowhere"])


def test_a_folder_of_run_folders_gives_a_hint(tmp_path: Path) -> None:
    fake_run(tmp_path / "digits", [fake_record(97.0)])
    with pytest.raises(AnalysisError, match=f"did you mean {tmp_path / 'digits'}"):
        merge([tmp_path])


def test_a_run_without_records_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    with pytest.raises(AnalysisError, match="no readable record"):
        merge([tmp_path])


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
    assert [one.path for one in merged.skipped] == [bad]
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


def test_a_record_from_before_the_newer_fields_still_counts(tmp_path: Path) -> None:
    record = fake_record(97.0, pruning="magnitude-0.5")
    path = fake_run(tmp_path, [record]) / "cells" / record.id / "record.json"
    whole = json.loads(path.read_text())
    newer = [name for name, field in Metrics.model_fields.items() if not field.is_required()]
    assert len(newer) > 15
    path.write_text(json.dumps(whole | {"metrics": {name: value for name, value in whole["metrics"].items() if name not in newer}}))
    (found,) = merge([tmp_path]).records
    (row,) = make_rows(merge([tmp_path]))
    assert found.metrics is not None and found.metrics.speedup_measured is None and found.metrics.notes == []
    told = {name: COLUMNS[name].read(row) for name in ("infer_gmacs", "gmacs_dense", "speedup_structural", "compression", "speedup_measured")}
    expected = {"infer_gmacs": 0.012, "gmacs_dense": 0.012, "speedup_structural": 1.0, "compression": pytest.approx(5 / 3), "speedup_measured": None}
    assert told == expected


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


def test_the_same_record_twice_counts_once(tmp_path: Path) -> None:
    a, b = (fake_run(tmp_path / name, [fake_record(97.0)]) for name in "ab")
    merged = merge([a, b])
    assert len(merged.records) == 1 and not merged.conflicts


def test_of_two_results_the_first_stands_and_the_conflict_is_told(tmp_path: Path) -> None:
    first = fake_record(95.0)
    later = fake_record(97.0).model_copy(update={"finished": "2026-01-02T00:00:00+00:00"})
    a, b = fake_run(tmp_path / "a", [later]), fake_run(tmp_path / "b", [first])
    merged = merge([a, b])
    assert [record.metrics.top1 for record in merged.records if record.metrics] == [95.0]
    assert "top1 97.0" in merged.conflicts[0] and "top1 95.0" in merged.conflicts[0]


def test_a_cell_done_elsewhere_has_not_failed(tmp_path: Path) -> None:
    a, b = fake_run(tmp_path / "a", [fake_record(None)]), fake_run(tmp_path / "b", [fake_record(97.0)])
    merged = merge([a, b])
    assert [record.status for record in merged.records] == ["done"] and not merged.conflicts


def test_the_same_cell_on_two_machines_is_no_conflict(tmp_path: Path) -> None:
    a = fake_run(tmp_path / "a", [fake_record(97.0)])
    b = fake_run(tmp_path / "b", [fake_record(96.9, environment=fake_environment(gpu="Example GPU"))])
    merged = merge([a, b])
    assert len(merged.records) == 2 and not merged.conflicts


@pytest.mark.parametrize("spec", [{}, {"data": None}, {"pruning": "dense"}, {"pruning": {"method": "dense", "knobs": 3}}])
def test_a_record_whose_spec_says_too_little_is_skipped(tmp_path: Path, spec: dict[str, object]) -> None:
    record = fake_record(97.0)
    run = fake_run(tmp_path, [record, fake_record(96.0, seed=1)])
    path = run / "cells" / record.id / "record.json"
    whole = json.loads(path.read_text())
    path.write_text(json.dumps(whole | {"spec": whole["spec"] | spec if spec else {}}))
    merged = merge([run])
    assert len(merged.records) == 1 and "its spec has no" in merged.skipped[0].reason


@pytest.mark.parametrize("plan", ['{"cells": [', "[]", '{"cells": {"a": 1}}', '{"cells": {"a": {"seed": 1}}}'])
def test_a_broken_plan_is_listed_and_the_records_still_count(tmp_path: Path, plan: str) -> None:
    run = fake_run(tmp_path, [fake_record(97.0)])
    (run / "plan.json").write_text(plan)
    merged = merge([run])
    assert len(merged.records) == 1 and merged.skipped[0].path.name == "plan.json"
