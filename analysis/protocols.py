"""A record whose network was timed in several ways becomes a record for each of them: every measuring protocol is a key of its own."""

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar, cast

import msgspec
from pydantic import BaseModel

from jobs.experiment.records import Record

Content = TypeVar("Content")


def by_protocol(records: Iterable[Record]) -> Iterator[Record]:
    """The records, each followed by those of its further protocols, which differ from it in what was timed."""
    for record in records:
        yield record
        if record.metrics is None:
            continue
        for protocol, timed in record.metrics.speeds.items():
            metrics = replaced(record.metrics, {**timed, "speed_protocol": protocol, "infer_j_per_img": None})
            yield replaced(record, {"metrics": metrics})


def replaced(content: Content, fields: dict[str, Any]) -> Content:
    """A copy of a record, or of a part of it, with other values in some fields."""
    if isinstance(content, BaseModel):
        return cast(Content, content.model_copy(update=fields))
    return cast(Content, msgspec.structs.replace(cast(msgspec.Struct, content), **fields))
