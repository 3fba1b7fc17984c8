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


def test_a_run_whose_only_record_is_torn_names_it_and_does_not_say_that_no_cell_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "cells" / "4cf2907ccc6b" / "record.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"id": "4cf2907ccc')
    with pytest.raises(AnalysisError, match=r"none of these can be read\n.*4cf2907ccc6b/record\.json: ") as told:
        merge([tmp_path])
    assert "no cell has ended" not in str(told.value)


def test_a_record_from_before_the_newer_fields_still_counts(tmp_path: Path) -> None:
    record = fake_record(97.0, pruning="magnitude-0.5")
    path = fake_run(tmp_path, [record]) / "cells" / record.id / "record.json"
    whole = json.loads(path.read_text())
    newer = [name for name, field in Metrics.model_fields.items() if not field.is_required()]
    assert len(newer) > 15
    path.write_text(json.dumps(whole | {"metrics": {name: value for name, value in whole["metrics"].items() if name not in newer}}))
    (read,) = merge([tmp_path]).records
    (row,) = make_rows(merge([tmp_path]))
    assert read.metrics is not None and read.metrics.speedup_measured is None and read.metrics.notes == []
    values = {name: COLUMNS[name].read(row) for name in ("infer_gmacs", "gmacs_dense", "speedup_structural", "compression", "speedup_measured")}
    expected = {"infer_gmacs": 0.012, "gmacs_dense": 0.012, "speedup_structural": 1.0, "compression": pytest.approx(5 / 3), "speedup_measured": None}
    assert values == expected


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


@pytest.mark.parametrize("plan", ['{"cells": [', "[]", '{"cells": {"a": 1}}', '{"cells": {"a": {"seed": 1}}}'])
def test_a_broken_plan_is_listed_and_the_records_still_count(tmp_path: Path, plan: str) -> None:
    run = fake_run(tmp_path, [fake_record(97.0)])
    (run / "plan.json").write_text(plan)
    merged = merge([run])
    assert len(merged.records) == 1 and merged.skipped[0].path.name == "plan.json"
