"""From a mapping in YAML to every choice of typed fields that it stands for.

A list expands if its field holds a single value. If the field holds a list, the list is the value, and a list of lists expands. Choices of several
fields multiply; `zip: {a: [1, 2], b: [3, 4]}` pairs them. Every value is checked against its field's type (`models.typed`).
"""

import itertools
import math
import typing
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

from harness.grid.yaml_source import Node, Report
from models.text import valid_names
from models.typed import LISTS, Mismatch, convert, fields_of, members, nested, shown

NONE: Mapping[str, str] = MappingProxyType({})
MOST_CHOICES = 100_000  # of an entry


def variants(
    node: Node, hints: Mapping[str, Any], key: str, report: Report, apart: Collection[str] = (), refused: Mapping[str, str] = NONE
) -> list[dict[str, Any]]:
    """Every choice that a mapping stands for, the first field varying slowest. `apart`: keys that the caller reads itself; `refused`: keys that
    others take, each with the reason why this entry does not.

    Mistakes go to the report; a field with a mistake is left out, so that the others can still be checked.
    """
    if not isinstance(node.value, dict):
        report.add(node.line, key, f"expected a mapping, got {shown(node.plain)}")
        return []
    axes = []
    for name, child in node.value.items():
        path = f"{key}.{name}"
        if name in apart:
            continue
        if name == "zip" and "zip" not in hints:
            axes += [_zipped(pair, hints, path, report, taken=node.value) for pair in one_or_several(child)]
        elif name in refused:
            report.add(child.line, path, refused[name])
        elif name not in hints:
            report.add(child.line, path, f"unknown key{valid_names(name, [*apart, *hints])}")
        else:
            axes.append([{name: value} for value in choices(child, hints[name], path, report)])
    axes = [axis for axis in axes if axis]
    if (count := math.prod(map(len, axes))) > MOST_CHOICES:
        report.add(
            node.line, key, f"its lists stand for {count} choices, and an entry may have at most {MOST_CHOICES}; shorten them, or pair them with zip"
        )
        return []
    return [{name: value for part in parts for name, value in part.items()} for parts in itertools.product(*axes)]


def one_or_several(node: Node) -> list[Node]:
    """The items of a list; any other node is the only item."""
    return node.value if isinstance(node.value, list) else [node]


def given_fields(node: Node) -> set[str]:
    """The keys of an entry, including those under `zip:`."""
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
            report.add(child.line, path, f"unknown key{valid_names(name, hints)}")
        elif name in taken:
            report.add(child.line, path, "also given outside zip; remove one of the two")
        elif not isinstance(child.value, list):
            report.add(child.line, path, f"expected a list, got {shown(child.plain)}")
        else:
            columns[name] = [_only_choice(item, hints[name], f"{path}[{index}]", report) for index, item in enumerate(child.value)]
    if len({len(column) for column in columns.values()}) > 1:
        lengths = ", ".join(f"{name} has {len(column)}" for name, column in columns.items())
        report.add(node.line, key, f"lists of unequal length: {lengths}")
    if len(report.problems) > known:
        return []
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _only_choice(node: Node, hint: Any, key: str, report: Report) -> Any:
    values = choices(node, hint, key, report)
    if len(values) > 1:
        report.add(node.line, key, f"stands for {len(values)} choices; an item of zip must be a single choice")
    return values[0] if values else None


def choices(node: Node, hint: Any, key: str, report: Report) -> list[Any]:
    """The values that a node stands for, each of its field's type. A nested dataclass comes as a mapping of the fields given."""
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
        return [convert(node.plain, hint)]
    except Mismatch as error:
        report.add(node.line, key, f"{error}{node.remark}")
        return []


def _is_one_value(node: Node, hint: Any) -> bool:
    """True if a list is the value of a field that holds lists, not a choice of several values."""
    assert isinstance(node.value, list)
    for member in members(hint):
        if typing.get_origin(member) in LISTS:
            inner = typing.get_args(member)[0]
            if all(not isinstance(item.value, list) or _is_one_value(item, inner) for item in node.value):
                return True
    return False
