"""Plain values, as YAML and JSON have them, to typed settings. Strict: true is no number, and an unknown field is an error."""

import dataclasses
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal, Union

from models.text import valid_names

NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")  # YAML 1.1 reads 1e-3 as text


class Mismatch(ValueError):
    """A value that is not of the type asked for; says what was expected."""


@cache
def fields_of(spec: type) -> dict[str, Any]:
    """The type of every field that a caller may set of a dataclass, in order."""
    hints = typing.get_type_hints(spec)
    return {field.name: hints[field.name] for field in dataclasses.fields(spec) if field.init}


def build(spec: type, values: Mapping[str, Any]) -> Any:
    """`spec(**values)`, with mappings as nested dataclasses and lists as tuples. ValueError: an unknown field, or what the dataclass refuses."""
    hints = fields_of(spec)
    for name in values:
        if name not in hints:
            raise ValueError(f"{spec.__name__}.{name}: unknown field{valid_names(name, hints)}")
    return spec(**{name: _built(value, hints[name]) for name, value in values.items()})


def _built(value: Any, hint: Any) -> Any:
    part = nested(hint)
    if part is not None and isinstance(value, Mapping):
        return build(part, value)
    return _tupled(value)


def _tupled(value: Any) -> Any:
    return tuple(_tupled(item) for item in value) if isinstance(value, list) else value


def members(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a union; of any other type itself alone."""
    return typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)


def nested(hint: Any) -> type | None:
    """The dataclass that a field may hold, or None."""
    return next((member for member in members(hint) if dataclasses.is_dataclass(member)), None)  # type: ignore[return-value]


def convert(value: Any, hint: Any) -> Any:
    """The value as the type asked for: lists as tuples, 1 as 1.0 and 1e-3 as a number where a number is asked for. Raises Mismatch."""
    for member in members(hint):
        try:
            return _convert(value, member)
        except Mismatch as error:
            last = error
    if len(members(hint)) == 1:
        raise last
    literals = [member for member in members(hint) if typing.get_origin(member) is Literal]
    if len(members(hint)) == 2 and literals and isinstance(value, str):
        return _convert(value, literals[0])
    raise Mismatch(f"expected {type_in_words(hint)}, got {shown(value)}")


def _convert(value: Any, hint: Any) -> Any:
    origin = typing.get_origin(hint)
    if origin is Literal:
        return _literal(value, typing.get_args(hint))
    if origin in (tuple, list, Sequence) and isinstance(value, list):
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
    inner = typing.get_args(hint)
    if len(inner) == 1 or inner[-1] is Ellipsis:
        return tuple(convert(item, inner[0]) for item in value)
    if len(inner) != len(value):
        raise Mismatch(f"expected {type_in_words(hint)}, got {len(value)} of them")
    return tuple(convert(item, member) for item, member in zip(value, inner))


WORDS: dict[Any, tuple[str, str]] = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    bool: ("true or false", "true or false"),
    str: ("text", "texts"),
    type(None): ("null", "nulls"),
}


def type_in_words(hint: Any) -> str:
    """A type in the user's words."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if len(members(hint)) > 1:
        return " or ".join(type_in_words(member) for member in members(hint))
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin in (tuple, list, Sequence):
        many = WORDS[inner[0]][1] if inner[0] in WORDS else "lists"
        return f"a list of {many}" if len(inner) == 1 or inner[-1] is Ellipsis else f"a list of {len(inner)} {many}"
    return WORDS[hint][0] if hint in WORDS else "a mapping"


def shown(value: Any) -> str:
    """A value in the words of a message."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "nothing"}[value]
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "a mapping"
    return f"text {value!r}" if isinstance(value, str) else str(value)
