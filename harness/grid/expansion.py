"""From a mapping in YAML to every choice of typed fields that it stands for.

A list given to a field that holds one value expands; given to a field that holds a list it is the value, and a list of lists expands. Choices of
several fields multiply; `zip: {a: [1, 2], b: [3, 4]}` pairs them. Every value is checked against the field's type, strictly: true is no number.
"""

import dataclasses
import itertools
import math
import re
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any, Literal, Union

from harness.grid.yaml_source import Node, Report, nearest

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
            raise ValueError(f"{spec.__name__}.{name}: unknown field{nearest(name, hints)}")
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


def variants(node: Node, hints: Mapping[str, Any], key: str, report: Report, apart: Collection[str] = ()) -> list[dict[str, Any]]:
    """Every choice that a mapping stands for, the first field varying slowest. `apart`: keys that the caller reads.

    Mistakes go to the report; a field that has one is left out, so that the others can still be checked.
    """
    if not isinstance(node.value, dict):
        report.add(node.line, key, f"expected a mapping, got {_shown(node)}")
        return []
    axes = []
    for name, child in node.value.items():
        path = f"{key}.{name}"
        if name in apart:
            continue
        if name == "zip" and "zip" not in hints:
            axes += [_zipped(pair, hints, path, report, taken=node.value) for pair in one_or_several(child)]
        elif name not in hints:
            report.add(child.line, path, f"unknown key{nearest(name, [*apart, *hints])}")
        else:
            axes.append([{name: value} for value in choices(child, hints[name], path, report)])
    return [{name: value for part in parts for name, value in part.items()} for parts in itertools.product(*filter(None, axes))]


def one_or_several(node: Node) -> list[Node]:
    """The items of a list; of anything else itself alone."""
    return node.value if isinstance(node.value, list) else [node]


def given_fields(node: Node) -> set[str]:
    """The keys of an entry, those under `zip:` among them."""
    assert isinstance(node.value, dict)
    pairs = one_or_several(node.value["zip"]) if "zip" in node.value else []
    return set(node.value).union(*(pair.value for pair in pairs if isinstance(pair.value, dict)))


def _zipped(node: Node, hints: Mapping[str, Any], key: str, report: Report, taken: Collection[str]) -> list[dict[str, Any]]:
    if not isinstance(node.value, dict) or not node.value:
        report.add(node.line, key, "expected lists of equal length by key, such as zip: {a: [1, 2], b: [3, 4]}")
        return []
    columns: dict[str, list[Any]] = {}
    known = len(report.problems)
    for name, child in node.value.items():
        path = f"{key}.{name}"
        if name not in hints:
            report.add(child.line, path, f"unknown key{nearest(name, hints)}")
        elif name in taken:
            report.add(child.line, path, "stands outside zip too; keep one of them")
        elif not isinstance(child.value, list):
            report.add(child.line, path, f"expected a list, got {_shown(child)}")
        else:
            columns[name] = [_only_choice(item, hints[name], f"{path}[{index}]", report) for index, item in enumerate(child.value)]
    if len({len(column) for column in columns.values()}) > 1:
        lengths = ", ".join(f"{name} has {len(column)}" for name, column in columns.items())
        report.add(node.line, key, f"lists of unequal length: {lengths}")
    if len(report.problems) > known:
        return []
    return [dict(zip(columns, row)) for row in zip(*columns.values())]


def _only_choice(node: Node, hint: Any, key: str, report: Report) -> Any:
    found = choices(node, hint, key, report)
    if len(found) > 1:
        report.add(node.line, key, f"stands for {len(found)} choices; in zip it must be one")
    return found[0] if found else None


def choices(node: Node, hint: Any, key: str, report: Report) -> list[Any]:
    """The values that a field may take, each of the field's type. Nested dataclasses come as mappings of the fields given."""
    part = nested(hint)
    if isinstance(node.value, list) and not _is_one_value(node, hint):
        if not node.value:
            report.add(node.line, key, "an empty list leaves no choice")
        return [value for index, item in enumerate(node.value) for value in choices(item, hint, f"{key}[{index}]", report)]
    if part is not None and isinstance(node.value, dict):
        return variants(node, fields_of(part), key, report)
    if part is not None and node.value is True:
        return [{}]
    if part is not None and node.value is False and type(None) in members(hint):
        return [None]
    try:
        return [convert(node, hint)]
    except Mismatch as error:
        report.add(node.line, key, str(error))
        return []


def _is_one_value(node: Node, hint: Any) -> bool:
    """Whether a list is the value of a field that holds lists, not a choice of several."""
    assert isinstance(node.value, list)
    for member in members(hint):
        if typing.get_origin(member) in (tuple, list, Sequence):
            inner = typing.get_args(member)[0]
            if all(not isinstance(item.value, list) or _is_one_value(item, inner) for item in node.value):
                return True
    return False


def convert(node: Node, hint: Any) -> Any:
    """The value as the type asked for: lists as tuples, 1 as 1.0 and 1e-3 as a number where a number is asked for. Raises Mismatch."""
    for member in members(hint):
        try:
            return _convert(node, member)
        except Mismatch as error:
            last = error
    if len(members(hint)) == 1:
        raise last
    literals = [member for member in members(hint) if typing.get_origin(member) is Literal]
    if len(members(hint)) == 2 and literals and isinstance(node.value, str):
        return _convert(node, literals[0])
    raise Mismatch(f"expected {said(hint)}, got {_shown(node)}")


def _convert(node: Node, hint: Any) -> Any:
    value, origin = node.value, typing.get_origin(hint)
    if origin is Literal:
        return _literal(node, typing.get_args(hint))
    if origin in (tuple, list, Sequence) and isinstance(value, list):
        return _tuple(node, hint)
    if origin in (dict, Mapping) and isinstance(value, dict):
        return node.plain
    if hint is float and not isinstance(value, bool) and _number(value) is not None:
        return _number(value)
    if hint in (int, bool, str, type(None)) and type(value) is hint:
        return value
    if hint is Any:
        return node.plain
    raise Mismatch(f"expected {said(hint)}, got {_shown(node)}")


def _number(value: Any) -> float | None:
    if not isinstance(value, int | float) and not (isinstance(value, str) and NUMBER.fullmatch(value)):
        return None
    try:
        number = float(value)
    except OverflowError:  # a whole number of more than 308 digits
        return None
    return number if math.isfinite(number) else None


def _literal(node: Node, valid: tuple[Any, ...]) -> Any:
    for value in valid:
        if value == node.value and type(value) is type(node.value):
            return value
    if isinstance(node.value, str):
        raise Mismatch(f"unknown value {node.value!r}{nearest(node.value, map(str, valid))}")
    raise Mismatch(f"expected one of {', '.join(map(str, valid))}, got {_shown(node)}")


def _tuple(node: Node, hint: Any) -> tuple[Any, ...]:
    assert isinstance(node.value, list)
    inner = typing.get_args(hint)
    if len(inner) == 1 or inner[-1] is Ellipsis:
        return tuple(convert(item, inner[0]) for item in node.value)
    if len(inner) != len(node.value):
        raise Mismatch(f"expected {said(hint)}, got {len(node.value)} of them")
    return tuple(convert(item, member) for item, member in zip(node.value, inner))


WORDS: dict[Any, tuple[str, str]] = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    bool: ("true or false", "true or false"),
    str: ("text", "texts"),
    type(None): ("null", "nulls"),
}


def said(hint: Any) -> str:
    """A type in the user's words."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if len(members(hint)) > 1:
        return " or ".join(said(member) for member in members(hint))
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin in (tuple, list, Sequence):
        many = WORDS[inner[0]][1] if inner[0] in WORDS else "lists"
        return f"a list of {many}" if len(inner) == 1 or inner[-1] is Ellipsis else f"a list of {len(inner)} {many}"
    return WORDS[hint][0] if hint in WORDS else "a mapping"


def _shown(node: Node) -> str:
    if isinstance(node.value, bool) or node.value is None:
        return {True: "true", False: "false", None: "nothing"}[node.value]
    if isinstance(node.value, list | dict):
        return "a list" if isinstance(node.value, list) else "a mapping"
    return f"text {node.value!r}" if isinstance(node.value, str) else str(node.value)
