"""Bytes -> records, a hundred thousand at a time. The msgspec structures are derived from the pydantic models of `jobs.experiment.records`.

msgspec is ten times as fast as pydantic. Content that it refuses, such as NaN, goes to pydantic, which accepts it or gives a readable reason.
"""

from collections.abc import Mapping
from functools import lru_cache
from types import UnionType
from typing import Any, NamedTuple, Union, cast, get_args, get_origin

import msgspec
from pydantic import BaseModel

from jobs.experiment.records import Record

RAW = "raw_"  # the prefix of a field that stays text until it is read


def structure(model: type[BaseModel], *, lazy: bool) -> type[msgspec.Struct]:
    """A msgspec structure with the fields, types, defaults and strictness of a pydantic model.

    `lazy`: mappings stay text and are decoded each time they are read, because most are never read. Mappings to Any always stay text.
    """
    fields: list[Any] = []
    names: dict[str, str] = {}
    readers: dict[str, property] = {}
    for name, field in model.model_fields.items():
        kind = converted(field.annotation, lazy=lazy)
        own = f"{RAW}{name}" if kind is msgspec.Raw else name
        names[own] = name
        if own != name:
            readers[name] = decoding_property(own)
        fields.append((own, kind) if field.is_required() else (own, kind, default(field.default, kind)))
    return msgspec.defstruct(model.__name__, fields, namespace=readers, rename=names, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False)


def decoding_property(field: str) -> property:
    """A property that decodes the text in a field."""

    def decode(record: msgspec.Struct) -> Any:
        return msgspec.json.decode(getattr(record, field))

    return property(decode)


def converted(annotation: Any, *, lazy: bool) -> Any:
    """The type of a field, with models replaced by structures."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return structure(annotation, lazy=lazy)
    if get_origin(annotation) in (Union, UnionType):
        return Union[tuple(converted(member, lazy=lazy) for member in get_args(annotation))]  # noqa: UP007 (made at run time)
    return msgspec.Raw if get_origin(annotation) is dict and (lazy or Any in get_args(annotation)) else annotation


def default(value: Any, kind: Any) -> Any:
    """The default of a field; of a mutable default a new copy each time."""
    if kind is msgspec.Raw:
        return msgspec.Raw(msgspec.json.encode(value))
    return msgspec.field(default_factory=lambda: type(value)(value)) if isinstance(value, list | dict) else value


WHOLE = msgspec.json.Decoder(structure(Record, lazy=False))
LAZY = msgspec.json.Decoder(structure(Record, lazy=True))


NOTHING = msgspec.Raw(b"")


class RawParts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A spec whose parts are still text."""

    model: msgspec.Raw
    pruning: msgspec.Raw
    data: msgspec.Raw
    recipe: msgspec.Raw
    seed: int
    tune: msgspec.Raw = NOTHING


class Parts(NamedTuple):
    """The texts of the parts of a spec. A grid has many cells, but few different texts."""

    model: bytes
    pruning: bytes
    data: bytes
    recipe: bytes
    tune: bytes = b""  # empty: not tuned


RAW_PARTS = msgspec.json.Decoder(RawParts)


def checked_record(content: bytes) -> Record:
    """The record in a file's bytes, with the types of all fields checked. Raises ValidationError with pydantic's reason."""
    try:
        return cast(Record, WHOLE.decode(content))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Record.model_validate_json(content)


def stored_record(content: bytes | memoryview) -> Record:
    """A record that was already checked. Its mappings are decoded when they are read."""
    try:
        return cast(Record, LAZY.decode(content))
    except msgspec.DecodeError:
        return Record.model_validate_json(bytes(content))


def parts_of(record: Record) -> Parts | None:
    """The parts of a record's spec; None if pydantic read the record, or if the spec has other parts."""
    raw = getattr(record, f"{RAW}spec", None)
    if raw is None:
        return None
    try:
        parts = RAW_PARTS.decode(raw)
    except msgspec.DecodeError:
        return None
    return Parts(bytes(parts.model), bytes(parts.pruning), bytes(parts.data), bytes(parts.recipe), bytes(parts.tune))


@lru_cache(maxsize=4096)
def decoded(text: bytes) -> Mapping[str, Any]:
    """The mapping in a text. Do not change it: the same text always gives the same object."""
    return cast(Mapping[str, Any], msgspec.json.decode(text))
