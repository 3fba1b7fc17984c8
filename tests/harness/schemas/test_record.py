"""The schemas of records and verifications."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.schemas.record import describe, record_schema
from jobs.experiment.records import Failure, Metrics
from tests.support.records import fake_metrics, fake_record, fake_verification

FIXTURES = Path(__file__).resolve().parents[3] / "tests" / "fixtures"
RECORDS = sorted(FIXTURES.rglob("record.json"))


def test_records_of_version_0_1_and_of_now_are_valid(of_records: Any) -> None:
    assert len(RECORDS) > 5
    for path in RECORDS:
        of_records.validate(json.loads(path.read_text()))
    old = json.loads(RECORDS[0].read_text())
    of_records.validate(old | {"metrics": fake_metrics(90.0).model_dump(mode="json")})


@pytest.mark.parametrize(
    "change", [{"seeds": 1}, {"seed": "none"}, {"status": "finished"}, {"schema_version": 2}, {"metrics": {"top1": 1.0}}], ids=str
)
def test_other_records_are_not(of_records: Any, change: dict[str, Any]) -> None:
    assert not of_records.is_valid(json.loads(RECORDS[0].read_text()) | change)


def test_fields_have_their_comments() -> None:
    assert record_schema()["$defs"]["Metrics"]["properties"]["latency_ms"]["description"] == "batch 1"
    schema = Failure.model_json_schema()
    describe(schema, Failure)
    assert schema["properties"]["kind"]["description"] == 'exception class, "diverged", "killed"'
    assert {"top1", "params"} <= Metrics.model_json_schema()["properties"].keys()


def test_a_verification_is_valid_and_one_with_another_verdict_is_not(of_verifications: Any) -> None:
    kept = fake_verification(fake_record(97.0), "drift", by="Ada").model_dump(mode="json")
    of_verifications.validate(kept)
    assert not of_verifications.is_valid(kept | {"verdict": "perhaps"}) and not of_verifications.is_valid(kept | {"host": "node1"})
