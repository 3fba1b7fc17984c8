"""Cells as offline runs of Weights & Biases, read back from their files."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.analysis.trackers.conftest import RECORDS, exported


def records_of(path: Path) -> Iterator[bytes]:
    """The records of a file of wandb's, which is a log as LevelDB writes it behind a header of 7 bytes: pieces in blocks of 32 KiB."""
    content, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:  # no piece begins in the last bytes of a block
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last piece of one
            yield whole
            whole = b""


def content(path: Path) -> tuple[Any, list[dict[str, Any]], dict[str, Any]]:
    """The run, its history and its summary in a file."""
    from wandb.proto import wandb_internal_pb2

    history, summary, run = [], {}, None
    for data in records_of(path):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        run = record.run if record.HasField("run") else run
        if record.HasField("history"):
            history.append({item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item})
        for item in record.summary.update:
            summary[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
    return run, history, summary


@pytest.mark.slow
def test_each_cell_is_a_run_with_its_id_once(run: Path) -> None:
    pytest.importorskip("wandb")
    exported(run, "wandb")
    exported(run, "wandb")
    files = {path.stem.removeprefix("run-"): path for path in (run / "exports" / "wandb").rglob("*.wandb")}
    assert files.keys() == {record.id for record in RECORDS}
    assert len(list((run / "exports" / "wandb" / "wandb").glob("offline-run-*"))) == len(RECORDS)
    written, history, summary = content(files[RECORDS[0].id])
    assert written.run_id == RECORDS[0].id and written.project == "fake"
    assert [(line["_step"], line["loss"]) for line in history] == [(1, 1.0), (2, 0.5), (3, 1.0)]
    assert summary["final/top1"] == 97.0
