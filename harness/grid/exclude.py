"""`exclude:` of a grid: partial matches that drop cells.

A pattern names parts of a cell (model, pruning, data, recipe, seed), and all of these must match. A part is a name or label, or a mapping of fields
with the values that they must have; a list means any of its items. A pattern that drops no cell is a mistake: a typo, or left over from another grid.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.grid.axes import Choice
from harness.grid.yaml_source import Node, Report
from models.text import valid_names
from models.typed import NUMBER

ChoicesByAxis = Mapping[str, Sequence[Choice[object]]]
NAME_KEYS = {"model": "name", "pruning": "method"}  # the key that holds the name, as in the grid's entries


@dataclass(frozen=True, kw_only=True)
class Exclusion:
    """A pattern, as the identities of the choices that it matches on each axis."""

    key: str
    line: int
    matches: tuple[frozenset[str], ...]  # one set for each axis, in their sequence

    def drops(self, choices: Sequence[Choice[object]]) -> bool:
        """True if a cell made of these choices, one from each axis, is dropped."""
        return all(choice.identity in identities for choice, identities in zip(choices, self.matches, strict=True))


def read_exclusions(node: Node | None, axes: ChoicesByAxis, report: Report) -> list[Exclusion]:
    """Every pattern; a part that matches nothing goes to the report. `check_patterns` has checked their form."""
    items = node.value if node is not None and isinstance(node.value, list) else []
    return [_exclusion(item, f"exclude[{index}]", axes, report) for index, item in enumerate(items)]


def check_patterns(node: Node | None, axes: Collection[str], report: Report) -> None:
    """Reports entries that are not patterns, whatever choices the grid has."""
    if node is None or node.value is None:
        return
    if not isinstance(node.value, list):
        report.add(node.line, "exclude", "expected a list of patterns, such as [{model: vim_micro, seed: 0}]")
        return
    for index, item in enumerate(node.value):
        key = f"exclude[{index}]"
        if not isinstance(item.value, dict) or not item.value:
            report.add(item.line, key, f"expected a mapping of {', '.join(axes)}")
            continue
        for name, child in item.value.items():
            if name not in axes:
                report.add(child.line, f"{key}.{name}", f"unknown key{valid_names(name, axes)}")


def _exclusion(node: Node, key: str, axes: ChoicesByAxis, report: Report) -> Exclusion:
    assert isinstance(node.value, dict)
    matches = []
    for axis, choices in axes.items():
        part = node.value.get(axis)
        matches.append(frozenset(choice.identity for choice in choices if part is None or _matches(part, choice, axis)))
        if part is not None and not matches[-1]:
            _explain(part, f"{key}.{axis}", axis, choices, report)
    return Exclusion(key=key, line=node.line, matches=tuple(matches))


def _matches(part: Node, choice: Choice[object], axis: str) -> bool:
    if isinstance(part.value, list):
        return any(_matches(item, choice, axis) for item in part.value)
    if not isinstance(part.value, dict):
        return str(part.value) in choice.names
    return all(_field_matches(key, wanted.plain, choice, axis) for key, wanted in part.value.items())


def _field_matches(key: str, wanted: Any, choice: Choice[object], axis: str) -> bool:
    if axis in NAME_KEYS and key in (NAME_KEYS[axis], "label"):
        has = choice.names[:1] if key == "label" else choice.names[1:]
        return any(item in has for item in (wanted if isinstance(wanted, list) else [wanted]))
    return key in choice.fields and same(wanted, choice.fields[key])


def same(wanted: Any, value: Any) -> bool:
    """True if a pattern's value fits a field's: 1 fits 1.0, a mapping may leave keys out, true fits any mapping, a list fits what an item fits."""
    if isinstance(value, Mapping):
        return wanted is True or isinstance(wanted, Mapping) and all(key in value and same(item, value[key]) for key, item in wanted.items())
    if isinstance(wanted, list):
        whole = isinstance(value, list) and len(wanted) == len(value) and all(map(same, wanted, value))
        return whole or any(same(item, value) for item in wanted)
    if value is None:
        return wanted is None or wanted is False
    if isinstance(value, float) and isinstance(wanted, str) and NUMBER.fullmatch(wanted):
        wanted = float(wanted)
    return isinstance(wanted, bool) == isinstance(value, bool) and bool(wanted == value)


def _explain(part: Node, key: str, axis: str, choices: Sequence[Choice[object]], report: Report) -> None:
    """Reports which field or name of a pattern is unknown, or that no choice has the value."""
    own = [NAME_KEYS[axis], "label"] if axis in NAME_KEYS else []
    fields = list(dict.fromkeys([*own, *(field for choice in choices for field in choice.fields)]))
    if isinstance(part.value, dict):
        unknown = [name for name in part.value if name not in fields]
        for name in unknown:
            report.add(part.value[name].line, f"{key}.{name}", f"unknown key{valid_names(name, fields)}")
        if not unknown:
            report.add(part.line, key, f"matches no {axis} of this grid{_names(choices)}{part.remark}")
    else:
        given = ", ".join(map(str, part.plain)) if isinstance(part.value, list) else str(part.plain)
        valid = dict.fromkeys(name for choice in choices for name in choice.names)
        advice = valid_names(given, valid) if valid else "; expected a mapping of fields"
        report.add(part.line, key, f"{given!r} matches no {axis} of this grid{advice}{part.remark}")


def _names(choices: Iterable[Choice[object]]) -> str:
    names = [choice.names[0] for choice in choices if choice.names]
    return f"; it has {', '.join(names)}" if names else ""
