"""A record of several measuring protocols is a record, and a key, for each of them."""

from pathlib import Path

import pytest

from analysis.decoding import checked_record, stored_record
from analysis.merge import merge
from analysis.protocols import by_protocol
from analysis.rows import make_rows
from jobs.experiment.records import Record
from jobs.experiment.run_folder import RunFolder
from tests.support.records import fake_record

TIMED = {"latency_ms": 1.0, "throughput_img_per_s": 4000.0, "speedup_measured": 1.5, "dense_latency_ms": 3.0}


def record_of(seed: int, pruning: str = "dense") -> Record:
    content = fake_record(97.0, seed=seed, pruning=pruning).model_dump(mode="json")
    content["metrics"]["speeds"] = {"forward pass, bf16": TIMED, "forward pass, fp32, torch.compile": {**TIMED, "latency_ms": 0.5}}
    return Record.model_validate(content)


@pytest.mark.parametrize("read", [Record.model_validate_json, checked_record, stored_record])
def test_each_protocol_has_the_record_with_its_own_times(read) -> None:  # type: ignore[no-untyped-def]
    first, *further = by_protocol([read(record_of(0).model_dump_json().encode())])
    assert first.metrics.latency_ms != 1.0
    assert [record.metrics.speed_protocol for record in further] == ["forward pass, bf16", "forward pass, fp32, torch.compile"]
    assert [record.metrics.latency_ms for record in further] == [1.0, 0.5]
    for record in further:
        assert (record.id, record.seed, record.metrics.top1) == (first.id, 0, 97.0)
        assert record.metrics.throughput_img_per_s == 4000.0 and record.metrics.infer_j_per_img is None
        assert dict(record.metrics.layers) == dict(first.metrics.layers)


def test_a_record_of_one_protocol_stays_one() -> None:
    for top1 in (97.0, None):
        record = fake_record(top1)
        assert list(by_protocol([record])) == [record]


def test_rows_of_several_protocols_have_keys_of_their_own(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    for seed in (0, 1):
        for pruning in ("dense", "magnitude"):
            run.write_record(record_of(seed, pruning))
    rows = make_rows(merge([run.path]))
    assert len({row.key for row in rows}) == 3 and len(rows) == 6
    for row in rows:
        assert len(row.done) == 2 and row.rank is not None
        assert row.is_dense or (row.dense is not None and row.dense.key == row.key)
    assert sorted({row.mean(lambda metrics: metrics.latency_ms) for row in rows}, key=str)[:2] == [0.5, 1.0]
