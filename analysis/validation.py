"""A file -> its record, or the reason why it was skipped."""

import hashlib
import json
import os
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from analysis.comparability import digest_of_key, row_and_key
from analysis.decoding import checked_record, decoded, parts_of
from analysis.store import Entry
from jobs.experiment.files import well_formed
from jobs.experiment.records import SCHEMA, Metrics, Record, not_finite

CHUNK = 1 << 16  # bytes per read


def read_entry(path: str, size: int, mtime_ns: int) -> Entry:
    """The entry of a record file. Raises OSError or ValueError if it is torn, has another schema, or contradicts itself or its folder."""
    content = read_bytes(path)
    try:
        record = checked(path, checked_record(content))
    except ValueError:
        mended = well_formed(content)
        if mended == content:
            raise
        content, record = mended, checked(path, checked_record(mended))
    if isinstance(record.metrics, Metrics):  # pydantic read it, because of a number that msgspec refuses, or of other content
        if infinite := not_finite(record.metrics):
            raise ValueError(infinite[0])
    row, key = row_and_key(record)
    return Entry(
        path=path,
        size=size,
        mtime_ns=mtime_ns,
        sha256=hashlib.sha256(content).hexdigest(),
        cell=f"{row} {record.seed}",
        key=digest_of_key(key),
        status=record.status,
        finished=record.finished,
        outcome=outcome(record),
        text=content.translate(None, b"\n\r\t"),  # they only occur between JSON's tokens: in strings they are escaped
    )


def read_bytes(path: str) -> bytes:
    """A file's content, read with few system calls, because there are many small files."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = os.read(file, CHUNK)
        while len(content) >= CHUNK and (more := os.read(file, CHUNK)):
            content += more
        return content
    finally:
        os.close(file)


def outcome(record: Record) -> str:
    """The values in which two runs of a cell must agree: accuracy, loss and weights."""
    if record.metrics is None:
        return "no result"
    return f"top1 {record.metrics.top1}, test loss {record.metrics.test_loss}, weights {str(record.weights_sha256)[:12]}"


def checked(path: str, record: Record) -> Record:
    """`record`. Raises ValueError if it contradicts itself or its folder."""
    folder = path.rsplit("/", 2)[-2]
    if record.id != folder:
        raise ValueError(f"a record of cell {record.id} in the folder of cell {folder}")
    if record.status == "done" and record.metrics is None:
        raise ValueError("done, but without metrics")
    if record.status == "failed" and record.failure is None:
        raise ValueError("failed, but without a reason")
    if record.metrics and record.status == "done" and not 0 <= record.metrics.top1 <= 100:
        raise ValueError(f"top1 is {record.metrics.top1}, not a percentage")
    parts = parts_of(record)
    if parts is None:
        check_spec(record.spec)
    else:
        check_parts(parts.model, parts.pruning, parts.data, parts.recipe)
    if record.tuning is not None and not 0 <= record.tuning.chosen < len(record.tuning.trials):
        raise ValueError(f"trial {record.tuning.chosen} is chosen, of {len(record.tuning.trials)}")
    return record


@lru_cache(maxsize=1 << 16)
def check_parts(model: bytes, pruning: bytes, data: bytes, recipe: bytes) -> None:
    """`check_spec` from texts, cached for all seeds of a row."""
    check_spec({"model": decoded(model), "pruning": decoded(pruning), "data": decoded(data), "recipe": decoded(recipe), "seed": 0})


def check_spec(spec: Any) -> None:
    """Raises ValueError if a cell's spec lacks a part that the analysis needs."""
    parts = ("model", "pruning", "data", "recipe")
    missing = [part for part in parts if not isinstance(spec, dict) or not isinstance(spec.get(part), dict)]
    if missing:
        raise ValueError(f"its spec has no {', '.join(missing)}")
    if not isinstance(spec["pruning"].get("method"), str) or not isinstance(spec["pruning"].get("knobs", {}), dict) or "seed" not in spec:
        raise ValueError("its spec has no seed, or no pruning method with knobs")


def reason(path: str, error: Exception) -> str:
    """The reason why `path` was skipped, in one line."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return f"torn, or not JSON: {first['msg']}"
    version = stated_version(path)
    if isinstance(version, int) and version > SCHEMA:
        return f"schema {version} is newer than {SCHEMA}, which this version reads; update vssm-bench"
    if isinstance(version, int) and version < SCHEMA:
        return f"schema {version} is older than {SCHEMA}, which this version reads; run its cell again, or merge with the version that wrote it"
    at = ".".join(map(str, first["loc"])) or "the whole file"
    return f"not a record of schema {SCHEMA}: {at}: {first['msg']}"


def stated_version(path: str) -> object:
    """The schema version that a JSON file states, or None."""
    with open(path, "rb") as file:
        content = file.read()
    value = json.loads(content)
    return value.get("schema_version") if isinstance(value, dict) else None
