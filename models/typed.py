"""Plain values, as YAML and JSON have them, to typed settings: the options of models, the knobs of methods, data, recipes and clusters.

Strict: true is no number, and an unknown field is an error. A value is checked for its type, then against the limits in its field's annotation
(`Annotated[int, AT_LEAST_1]`), and last by the dataclass itself (`__post_init__`). These are settings that a person writes; the JSON that programs
write for programs, such as records, is read with pydantic.
"""

import dataclasses
import math
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, Union

from models.text import valid_names

Settings = TypeVar("Settings")
Kind = TypeVar("Kind")
FieldErrors = Iterable[tuple[tuple[str, ...], str]]  # path of fields, message

LISTS = (tuple, list, Sequence)
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)  # YAML 1.1 reads 1e-3 as text


@dataclass(frozen=True, kw_only=True)
class Limit:
    """What a value of the right type must also satisfy."""

    words: str  # complete 'must be ...'
    holds: Callable[[Any], bool]


AT_LEAST_0 = Limit(words="0 or more", holds=lambda value: value >= 0)
AT_LEAST_1 = Limit(words="1 or more", holds=lambda value: value >= 1)
ABOVE_0 = Limit(words="above 0", holds=lambda value: value > 0)
FRACTION = Limit(words="0 or more and below 1", holds=lambda value: 0 <= value < 1)


def between(least: int, most: int) -> Limit:
    """The limit of a number from `least` to `most`, both included."""
    return Limit(words=f"from {least} to {most}", holds=lambda value: least <= value <= most)


@dataclass(frozen=True, kw_only=True, eq=False)
class RowOf:
    """What a name must also satisfy: it is a key of a table, which plug-ins may add to."""

    table: Mapping[str, Any]
    others: Callable[[], Iterable[str]] = tuple  # names that are not in the table yet, for advice

    def check(self, name: str) -> None:
        """Raises Mismatch, with the nearest and all valid names."""
        if name not in self.table:
            raise Mismatch(f"unknown value {name!r}{valid_names(name, dict.fromkeys([*self.table, *self.others()]))}")


class Mismatch(ValueError):
    """A value does not fit its field; the message says what was expected."""


class SettingsError(ValueError):
    """Values from which a dataclass cannot be made. `errors`: the path of fields and the message of each mistake."""

    def __init__(self, name: str, errors: FieldErrors) -> None:
        self.errors = list(errors)
        super().__init__("\n".join(f"{'.'.join((name, *path))}: {message}" if path else message for path, message in self.errors))


def fields_of(spec: type) -> dict[str, Any]:
    """The type of every field of a dataclass that a caller may set, as the dataclass lists them."""
    return _fields_of(spec, annotated=False)


def annotated_fields_of(spec: type) -> dict[str, Any]:
    """The same with the limits in the annotations."""
    return _fields_of(spec, annotated=True)


@cache
def _fields_of(spec: type, *, annotated: bool) -> dict[str, Any]:
    hints, every = (typing.get_type_hints(spec, include_extras=extras) for extras in (annotated, True))
    rows = {name: hint for name, hint in every.items() if any(_metadata(hint, RowOf))}  # which types are by names that may come later
    return {field.name: rows.get(field.name, hints[field.name]) for field in dataclasses.fields(spec) if field.init}


def build(spec: type[Settings], values: Mapping[str, Any]) -> Settings:
    """`spec(**values)`; mappings become nested dataclasses (true: one at its defaults), lists tuples. Raises SettingsError with every mistake."""
    fields: dict[str, Any] = {}
    errors: list[tuple[tuple[str, ...], str]] = []
    for name, value in values.items():
        try:
            fields[name] = _field(spec, name, value)
        except SettingsError as error:
            errors += [((name, *path), message) for path, message in error.errors]
        except Mismatch as error:
            errors.append(((name,), str(error)))
    errors += [((name,), "missing") for name in _required(spec) if name not in values]
    if errors:
        raise SettingsError(spec.__name__, errors)
    try:
        return spec(**fields)
    except SettingsError as error:
        raise SettingsError(spec.__name__, error.errors) from None
    except ValueError as error:
        raise SettingsError(spec.__name__, [((), str(error))]) from None


def _required(spec: type) -> list[str]:
    missing = dataclasses.MISSING
    return [field.name for field in dataclasses.fields(spec) if field.init and field.default is missing and field.default_factory is missing]


def _field(spec: type, name: str, value: Any) -> Any:
    """The value of a field, of its type and within its limit."""
    hints = fields_of(spec)
    if name not in hints:
        raise Mismatch(f"unknown field{valid_names(name, hints)}")
    part = nested(hints[name])
    if part is not None and (value is True or isinstance(value, Mapping)):
        return build(part, {} if value is True else value)
    converted = value if part is not None and isinstance(value, part) else convert(value, hints[name])
    for item, limit in _limited(converted, annotated_fields_of(spec)[name]):
        if not limit.holds(item):
            raise Mismatch(f"must be {limit.words}, got {item}")
    return converted


def _metadata(hint: Any, kind: type[Kind]) -> Iterator[Kind]:
    """The parts of one kind in a field's annotation."""
    if typing.get_origin(hint) is Annotated:
        yield from (part for part in hint.__metadata__ if isinstance(part, kind))


def _limited(value: Any, hint: Any) -> Iterator[tuple[Any, Limit]]:
    """Every number in a field's value with the limit of its annotation."""
    if value is None:
        return
    if typing.get_origin(hint) is Annotated:
        yield from ((value, limit) for limit in _metadata(hint, Limit))
    elif isinstance(value, tuple):
        for item, inner in zip(value, item_types(hint, len(value)), strict=True):
            yield from _limited(item, inner)
    else:
        for member in members(hint):
            if member is not hint:
                yield from _limited(value, member)


def item_types(hint: Any, count: int) -> list[Any]:
    """The type of each of `count` items in a field that holds a tuple; Any where the field says nothing."""
    for member in members(hint):
        inner = typing.get_args(member)
        if inner and typing.get_origin(member) in LISTS:
            return [inner[0]] * count if len(inner) == 1 or inner[-1] is Ellipsis else list(inner)
    return [Any] * count


def members(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a union; any other type is its own only alternative."""
    return typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)


def nested(hint: Any) -> type | None:
    """The dataclass that a field may hold, or None."""
    return next((member for member in members(hint) if isinstance(member, type) and dataclasses.is_dataclass(member)), None)


def convert(value: Any, hint: Any) -> Any:
    """The value as its field's type has it: lists as tuples; for a float 1 as 1.0, and '1e-3' as a number. Raises Mismatch."""
    if len(members(hint)) == 1:
        return _convert(value, hint)
    for member in members(hint):
        try:
            return _convert(value, member)
        except Mismatch:
            continue
    literals = [member for member in members(hint) if typing.get_origin(member) is Literal]
    if len(members(hint)) == 2 and literals and isinstance(value, str):
        return _convert(value, literals[0])
    raise Mismatch(f"expected {type_in_words(hint)}, got {shown(value)}")


def _convert(value: Any, hint: Any) -> Any:
    origin = typing.get_origin(hint)
    if origin is Annotated:
        return _row_name(_convert(value, typing.get_args(hint)[0]), hint)
    if origin is Literal:
        return _literal(value, typing.get_args(hint))
    if origin in LISTS and isinstance(value, list | tuple):
        return _tuple(value, hint)
    if origin in (dict, Mapping) and isinstance(value, dict):
        return value
    if hint is float and not isinstance(value, bool) and _number(value) is not None:
        return _number(value)
    if hint in (int, bool, str, type(None)) and type(value) is hint:
        return value
    if hint is Any:
        return value
    raise Mismatch(f"expected {type_in_words(hint)}, got {shown(value)}")


def _row_name(name: str, hint: Any) -> str:
    for row in _metadata(hint, RowOf):
        row.check(name)
    return name


def _number(value: Any) -> float | None:
    if not isinstance(value, int | float) and not (isinstance(value, str) and NUMBER.fullmatch(value)):
        return None
    try:
        number = float(value)
    except OverflowError:  # a whole number of more than 308 digits
        return None
    return number if math.isfinite(number) else None


def _literal(value: Any, valid: tuple[Any, ...]) -> Any:
    for choice in valid:
        if choice == value and type(choice) is type(value):
            return choice
    if isinstance(value, str):
        raise Mismatch(f"unknown value {value!r}{valid_names(value, map(str, valid))}")
    raise Mismatch(f"expected one of {', '.join(map(str, valid))}, got {shown(value)}")


def _tuple(value: Sequence[Any], hint: Any) -> tuple[Any, ...]:
    types = item_types(hint, len(value))
    if len(types) != len(value):
        raise Mismatch(f"expected {type_in_words(hint)}, got a list of {len(value)}")
    return tuple(convert(item, inner) for item, inner in zip(value, types, strict=True))


WORDS: dict[Any, tuple[str, str]] = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    bool: ("true or false", "true or false"),
    str: ("text", "texts"),
    type(None): ("null", "nulls"),
}


def type_in_words(hint: Any) -> str:
    """A type as messages name it: 'a number or null'."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if len(members(hint)) > 1:
        return " or ".join(type_in_words(member) for member in members(hint))
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin in LISTS:
        many = WORDS[inner[0]][1] if inner[0] in WORDS else "lists"
        return f"a list of {many}" if len(inner) == 1 or inner[-1] is Ellipsis else f"a list of {len(inner)} {many}"
    return WORDS[hint][0] if hint in WORDS else "a mapping"


def shown(value: Any) -> str:
    """A value as messages name it: "text 'fast'"."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "nothing"}[value]
    if isinstance(value, list | tuple | dict):
        return "a mapping" if isinstance(value, dict) else "a list"
    return f"text {value!r}" if isinstance(value, str) else str(value)
