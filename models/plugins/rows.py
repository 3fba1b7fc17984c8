"""What rows of the tables must be. Each function gives the problem of a row in words, or None."""

import dataclasses
import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from models.pruning.base import PruningMethod
from models.pruning.chain import Chain
from models.registry import ModelEntry
from models.typed import SettingsError, build, fields_of, members

PLAIN: Final = (int, float, bool, str, type(None), Any)
BUILD: Final = "build(config, img_size, num_classes, scan_backend)"
TAKEN: Final = {  # what an entry of a grid, or a call of create_model, means by these words
    "models": ("name", "label", "cluster", "num_classes", "img_size", "scan_backend"),
    "pruning": ("method", "label", "cluster", "chain"),
}


def model_problem(name: str, entry: Any) -> str | None:
    """What is wrong with a row of MODELS."""
    if not isinstance(entry, ModelEntry):
        return f"expected a models.registry.ModelEntry, got {described(entry)}"
    if not takes(entry.build, 4):
        return f"build must be a function {BUILD}, got {described(entry.build)}"
    if type(entry.img_size) is not int or entry.img_size < 1:
        return f"img_size must be a whole number of pixels, got {entry.img_size!r}"
    return options_problem("config", entry.config) or taken_problem("models", type(entry.config))


def method_problem(name: str, method: Any) -> str | None:
    """What is wrong with a row of METHODS."""
    if name == Chain.name:
        return f"the name is taken: {name} stands for several methods; choose another"
    if not isinstance(method, type) or not issubclass(method, PruningMethod):
        return f"expected a class that inherits from models.pruning.base.PruningMethod, got {described(method)}"
    if "__dataclass_fields__" not in vars(method):
        return f"{method.__name__} must be a dataclass: write @dataclass(frozen=True, kw_only=True) above it"
    if getattr(method, "name", None) != name:
        return f"{method.__name__} must have the same name inside: name: ClassVar[str] = {name!r}"
    if method.stages is PruningMethod.stages:
        return f"{method.__name__} needs a method stages(self, budget), which gives the stages of a cell"
    return field_problem(method) or taken_problem("pruning", method)


def taken_problem(table: str, spec: type) -> str | None:
    """Which field of a dataclass no grid could set, because the word means something else there."""
    name = next((field.name for field in dataclasses.fields(spec) if field.name in TAKEN[table]), None)
    return name and f"{spec.__name__}.{name}: {name} means something else in an entry of {table}; give the field another name"


def options_problem(field: str, options: Any) -> str | None:
    """What is wrong with the object of options in a field of a row."""
    if isinstance(options, type) or not dataclasses.is_dataclass(options):
        return f"{field} must be an object of a dataclass, such as Config(), got {described(options)}"
    parameters: Any = getattr(type(options), "__dataclass_params__", None)
    if not parameters.frozen:
        return f"{type(options).__name__} must not change: write @dataclass(frozen=True, kw_only=True) above it"
    if not callable(getattr(options, "check", None)):
        return f"{type(options).__name__} needs a method check(self), which raises ValueError for options that do not go together"
    return field_problem(type(options)) or default_problem(options)


def default_problem(config: Any) -> str | None:
    """Why the values of an object of options are none that its own fields take."""
    try:
        build(type(config), {field.name: plain_value(getattr(config, field.name)) for field in dataclasses.fields(config) if field.init})
        config.check()
    except SettingsError as error:
        return f"{type(config).__name__}: {error}"
    except ValueError as error:
        return f"its options do not go together: {error}"
    return None


def plain_value(value: Any) -> Any:
    """An option as a grid would have it: objects as mappings, tuples as lists."""
    if dataclasses.is_dataclass(value):
        return {field.name: plain_value(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return [plain_value(item) for item in value] if isinstance(value, tuple | list) else value


def field_problem(spec: type) -> str | None:
    """Which field of a dataclass has a type that no setting can have."""
    try:
        hints = fields_of(spec)
    except Exception as error:  # an annotation may name anything
        return f"{spec.__name__}: its annotations cannot be read: {type(error).__name__}: {error}"
    for field, hint in hints.items():
        if not settable(hint):
            valid = "int, float, bool, str, None, Literal[...], tuple[...] of these, a dataclass of these, or a union of these"
            return f"{spec.__name__}.{field}: no setting can be a {getattr(hint, '__name__', hint)}; valid: {valid}"
    return None


def settable(hint: Any) -> bool:
    """True for the types that `models.typed` reads from YAML."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return all(map(settable, members(hint)))
    if typing.get_origin(hint) is Literal or hint in PLAIN:
        return True
    if typing.get_origin(hint) in (tuple, list, Sequence):
        return all(inner is Ellipsis or settable(inner) for inner in typing.get_args(hint))
    if typing.get_origin(hint) in (dict, Mapping):
        return False
    return isinstance(hint, type) and dataclasses.is_dataclass(hint) and field_problem(hint) is None


def takes(function: Any, count: int) -> bool:
    """True for a function that can be called with so many arguments."""
    try:
        inspect.signature(function).bind(*range(count))
    except (TypeError, ValueError):
        return False
    return True


def described(value: Any) -> str:
    """A value as messages name it: a class or a function by its name, anything else by its type."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if inspect.isfunction(value):
        return f"the function {value.__name__}{inspect.signature(value)}"
    return f"a value of type {type(value).__name__}"
