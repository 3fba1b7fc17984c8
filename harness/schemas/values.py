"""From types, as `models.typed` reads them, to JSON Schema: single values, the choices that a grid may give, and mappings of typed fields.

The schemas hold for values after our reading of YAML 1.1, so a number such as 1e-3 may be text. No schema refuses what the launcher takes, but for
names of installed packages in a grid without `plugins`; what a schema cannot say, such as fields that exclude each other, the launcher says.
"""

import dataclasses
import re
import typing
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from models.configs import PATH_WORDS, SCAN_PATH
from models.typed import LISTS, NUMBER, Limit, RowOf, annotated_fields_of, members, nested

Schema = dict[str, Any]
NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
PLAIN: Final[Mapping[Any, Schema]] = {
    int: {"type": "integer"},
    float: {"type": ["number", "string"], "pattern": f"^(?:{NUMBER.pattern})$"},
    bool: {"type": "boolean"},
    str: {"type": "string"},
    type(None): {"type": "null"},
    Any: {},
}
PHRASES: Final[Mapping[str, tuple[str, ...]]] = {  # of the words of a limit, with JSON Schema's names of the numbers in them
    r"(\S+) or more": ("minimum",),
    r"above (\S+)": ("exclusiveMinimum",),
    r"below (\S+)": ("exclusiveMaximum",),
    r"at most (\S+)": ("maximum",),
    r"(\d\S*) to (\d\S*)": ("minimum", "maximum"),
    r"(\S+) < low <= high <= (\S+)": ("exclusiveMinimum", "maximum"),
}


@dataclass(frozen=True, kw_only=True)
class Texts:
    """What a schema says of fields beside their types, by the names of the fields."""

    descriptions: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, Limit] = field(default_factory=dict)
    names: Mapping[str, Iterable[str]] = field(default_factory=dict)  # the valid texts in a field that is a list of texts


def value_schema(hint: Any) -> Schema:
    """A single value of a type."""
    if len(members(hint)) > 1:
        return any_of(value_schema(member) for member in members(hint))
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        limits = [part for part in hint.__metadata__ if isinstance(part, Limit)]
        rows = [part for part in hint.__metadata__ if isinstance(part, RowOf)]
        schema = value_schema(inner[0])
        for limit in limits:
            schema = limited(schema, limit)
        return known_or_other(rows[0].table) if rows else schema
    if origin is Literal:
        return {"enum": list(inner)}
    if origin in LISTS:
        return list_schema(inner)
    if origin in (dict, Mapping):
        return {"type": "object"}
    if part := nested(hint):
        return {"anyOf": [reference(part.__name__), {"const": True}]}
    return dict(PLAIN[hint])


def reference(name: str) -> Schema:
    """The definition of that name, which the whole schema must hold."""
    return {"$ref": f"#/definitions/{name}"}


def nested_schemas(spec: type) -> dict[str, Schema]:
    """The definitions of the dataclasses in the fields of another, by name."""
    parts = [part for hint in annotated_fields_of(spec).values() if (part := nested(hint))]
    return {part.__name__: settings_schema(part, Texts(descriptions=comments(part), defaults=defaults(part))) for part in parts}


def known_or_other(names: Iterable[str], *patterns: str) -> Schema:
    """A name of a table, which an editor completes, or a text: plug-ins add names."""
    return {"type": "string", "anyOf": [{"enum": list(names)}, *({"pattern": pattern} for pattern in patterns), {}]}


def list_schema(inner: tuple[Any, ...]) -> Schema:
    """A list, of any length or as long as the types in it."""
    if len(inner) == 1 or inner[-1] is Ellipsis:
        return {"type": "array", "items": value_schema(inner[0])}
    items = [value_schema(item) for item in inner]
    alike = all(item == items[0] for item in items)
    return {"type": "array", "items": items[0] if alike else items, "minItems": len(items), "maxItems": len(items)}


def any_of(schemas: Iterable[Schema]) -> Schema:
    """Any of the schemas; as a single one where their keywords do not meet."""
    parts = list(schemas)
    if {"type": "null"} in parts and any("enum" in part for part in parts):
        parts = [{"enum": [*part["enum"], None]} if "enum" in part else part for part in parts if part != {"type": "null"}]
    if len(parts) == 1:
        return parts[0]
    keywords = [keyword for part in parts for keyword in part if keyword != "type"]
    if all("type" in part for part in parts) and len(keywords) == len(set(keywords)):
        every = [kind for part in parts for kind in ([part["type"]] if isinstance(part["type"], str) else part["type"])]
        return {"type": list(dict.fromkeys(every))} | {keyword: part[keyword] for part in parts for keyword in part if keyword != "type"}
    return {"anyOf": parts}


def limited(schema: Schema, limit: Limit) -> Schema:
    """The schema of values that keep a limit too; of a list, each item."""
    numbers = bounds(limit)
    if limit.words == PATH_WORDS:
        return schema | {"pattern": f"^(?:{SCAN_PATH.pattern})$"}
    if isinstance(schema.get("items"), dict):
        return schema | {"items": limited(schema["items"], limit)}
    positive = min(numbers.get("minimum", -1), 0) == 0 or "exclusiveMinimum" in numbers
    text = {"pattern": schema["pattern"].replace("[-+]?(\\d", "[+]?(\\d", 1)} if positive and "pattern" in schema else {}
    return schema | numbers | text


def bounds(limit: Limit) -> dict[str, float]:
    """JSON Schema's bounds of a limit, from its words; none for words that name no number."""
    given = {"multipleOf": 2.0} if limit.words.startswith("even") else {}
    for phrase, keywords in PHRASES.items():
        if match := re.search(phrase, limit.words):
            given |= {keyword: float(number) for keyword, number in zip(keywords, match.groups(), strict=True)}
    return {keyword: int(number) if number == int(number) else number for keyword, number in given.items()}


def choices_schema(hint: Any, value: Schema) -> Schema:
    """What a grid may give for a field: a value, or a list of values, which expands. `value`: the schema of a value of the type `hint`."""
    lists = any(typing.get_origin(member) in LISTS for member in members(_bare(hint)))
    deeper: Schema = {"type": "array", "minItems": 1}
    if lists:
        deeper["contains"] = {"type": "array"}
    return {"anyOf": [value, {**deeper, "items": {"anyOf": [value, deeper]}}]} if value else {}


def _bare(hint: Any) -> Any:
    return typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint


def field_schema(name: str, hint: Any, texts: Texts, expands: bool = True) -> Schema:
    """The schema of a field, with its description, default and limit. expands: whether a list of values stands for several choices."""
    value = value_schema(hint)
    if nested(hint) and type(None) in members(hint):
        value = any_of([value, {"const": False}])
    if name in texts.names:
        value = {"type": "array", "items": {"enum": list(texts.names[name])}, "minItems": 1, "uniqueItems": True}
    if name in texts.limits:
        value = limited(value, texts.limits[name])
    head: Schema = {"description": texts.descriptions[name]} if name in texts.descriptions else {}
    if name in texts.defaults:
        head["default"] = texts.defaults[name]
    return head | (choices_schema(hint, value) if expands else value)


def settings_schema(spec: type, texts: Texts, apart: Mapping[str, Schema] = NOTHING, without: Collection[str] = ()) -> Schema:
    """A mapping of the fields of a dataclass, in a grid. `apart`: further keys that the entry may have. `without`: fields that the launch fills."""
    hints = {name: hint for name, hint in annotated_fields_of(spec).items() if name not in without}
    properties = {name: field_schema(name, hint, texts) for name, hint in hints.items()}
    return entry_schema(dict(apart) | properties, hints)


def entry_schema(properties: Mapping[str, Schema], fields: Iterable[str]) -> Schema:
    """A mapping of these properties and no others, where `zip` may pair lists of some fields."""
    every = {"zip": zip_schema(fields)} | dict(properties)
    return {"type": "object", "properties": every, "additionalProperties": False}


def zip_schema(fields: Iterable[str]) -> Schema:
    """`zip:`, lists of equal length by field, or several such mappings."""
    lists = {"type": "object", "propertyNames": {"enum": list(fields)}, "additionalProperties": {"type": "array", "minItems": 1}, "minProperties": 1}
    return {
        "description": "pairs lists of equal length: {a: [1, 2], b: [3, 4]} stands for two pairs",
        "anyOf": [lists, {"type": "array", "items": lists}],
    }


def defaults(spec: type) -> dict[str, Any]:
    """The defaults of a dataclass's fields, as JSON has them; without those that JSON does not have."""
    return {name: value for name, value in _defaults(spec) if value is None or isinstance(value, bool | int | float | str | list | dict)}


def _defaults(spec: type) -> Iterator[tuple[str, Any]]:
    for own in dataclasses.fields(spec):
        value = own.default if own.default_factory is dataclasses.MISSING else own.default_factory()
        yield own.name, list(value) if isinstance(value, tuple) else value


def comments(spec: type) -> dict[str, str]:
    """The comments behind the fields in the source of a class and of those that it inherits from."""
    import inspect

    described: dict[str, str] = {}
    for base in reversed(spec.__mro__[:-1]):
        for name, comment in re.findall(r"^ {4}(\w+): .*?  # (.*)$", inspect.getsource(base), re.M):
            described[name] = comment
    return described
