"""What timm has: the names of its models, their tags, and the arguments of each, read from the text of its source. No torch at import.

`python -m models.timm_source` prints the names. timm itself imports torch, which takes seconds on a login node. A test holds the names against
`timm.list_models`, and the arguments against the signatures of its classes.
"""

import ast
import operator
import re
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, reduce
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from models.closed_pipe import ends_with_its_reader

ENTRY = re.compile(r"^@register_model\s*\ndef (\w+)\(", re.MULTILINE)
PLAIN: dict[str, Any] = {"int": int, "float": float, "bool": bool, "str": str, "LayerType": str, "None": type(None), "Any": Any}
PLAIN |= {"_int_or_tuple_2_t": int | tuple[int, int]}  # timm's own name
LISTS = ("Tuple", "tuple", "List", "list", "Sequence", "Iterable")
UNIONS = ("Union", "Optional", "Annotated")
OF_ENTRIES = {"name", "label", "cluster", "zip", "pretrained", "pretrained_key"}  # keys of a grid's entry
OURS = {"self", "cfg", "device", "dtype", "args", "kwargs", "check"} | OF_ENTRIES  # not to be set


@dataclass(frozen=True, kw_only=True)
class Module:
    """A file of timm.models: its functions and classes, and where the names that it imports come from."""

    functions: Mapping[str, ast.FunctionDef]
    classes: Mapping[str, ast.ClassDef]
    imported: Mapping[str, str]  # name: the stem of the file of timm.models that defines it


def folder() -> Path:
    """The folder of timm.models. ValueError without timm."""
    spec = find_spec("timm")
    if spec is None or spec.origin is None:
        raise ValueError("timm is not installed: install this package's requirements again")
    return Path(spec.origin).parent / "models"


@cache
def files() -> dict[str, str]:
    """The stem of the file that defines each model, by the model's name."""
    return {name: path.stem for path in sorted(folder().glob("*.py")) for name in ENTRY.findall(path.read_text(encoding="utf-8"))}


def tags(name: str) -> tuple[str, ...]:
    """The tags of a model's published weights, such as a1_in1k of resnet50."""
    text = (folder() / f"{files()[name]}.py").read_text(encoding="utf-8")
    return tuple(dict.fromkeys(tag for tag in re.findall(rf"""['"]{re.escape(name)}\.([\w.-]+)\*?['"]\s*:""", text)))


@cache
def module(stem: str) -> Module:
    """A file of timm.models."""
    tree = ast.parse((folder() / f"{stem}.py").read_text(encoding="utf-8"))
    imported: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and (node.level == 1 or node.module.startswith("timm.models.")):
            source = node.module.removeprefix("timm.models.")
            if (folder() / f"{source}.py").exists():
                imported |= {alias.asname or alias.name: source for alias in node.names}
    return Module(
        functions={node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)},
        classes={node.name: node for node in tree.body if isinstance(node, ast.ClassDef)},
        imported=imported,
    )


@cache
def arguments(name: str) -> dict[str, Any]:
    """The arguments of a model's class that a plain value can set, each with its type; Any where timm gives none."""
    known: dict[str, Any] = {}
    for stem, network in network_classes(name):
        for argument, hint in of_class(stem, network).items():
            known[argument] = hint if argument not in known or known[argument] == hint else Any
    return {argument: hint for argument, hint in known.items() if argument not in fixed(name)}


@cache
def fixed(name: str) -> frozenset[str]:
    """The arguments that a model's function gives itself, beside those that it passes on: `dict(num_blocks=8, **kwargs)`."""
    functions = [module(stem).functions[function] for stem, function in reached(name) if function in module(stem).functions]
    calls = [(function, node) for function in functions for node in ast.walk(function) if isinstance(node, ast.Call)]
    passing = [call for function, call in calls if any(passed_on(word, function) for word in call.keywords)]
    return frozenset(word.arg for call in passing for word in call.keywords if word.arg)


def passed_on(word: ast.keyword, function: ast.FunctionDef) -> bool:
    """True for the `**kwargs` of a call in a function that takes `**kwargs`."""
    taken = function.args.kwarg
    return word.arg is None and isinstance(word.value, ast.Name) and taken is not None and word.value.id == taken.arg


@cache
def reached(name: str) -> tuple[tuple[str, str], ...]:
    """(file, name) of the functions and classes that a model's function names, and those that they name."""
    waiting, seen = [(files()[name], name)], {}
    while waiting:
        stem, name = waiting.pop()
        file = module(stem)
        if (stem, name) in seen:
            continue
        if name in file.functions:
            waiting += [(stem, node.id) for node in ast.walk(file.functions[name]) if isinstance(node, ast.Name)]
        elif name in file.imported and name not in file.classes:
            waiting.append((file.imported[name], name))
        seen[stem, name] = name in file.functions or name in file.classes
    return tuple(key for key, defined in seen.items() if defined)


def network_classes(name: str) -> Iterator[tuple[str, str]]:
    """(file, class) of every class with a classifier that a model's function reaches."""
    for stem, network in reached(name):
        if network in module(stem).classes and "num_classes" in of_class(stem, network, ours=True):
            yield stem, network


def of_class(stem: str, name: str, ours: bool = False) -> dict[str, Any]:
    """The arguments of a class by name, with their types; those of its base, and the fields of its `cfg`, where it takes further ones by name.

    `ours`: also those that a grid does not set.
    """
    file = module(stem)
    if name in file.imported:
        return of_class(file.imported[name], name, ours)
    if name not in file.classes:
        return {}
    node = file.classes[name]
    init = next((item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"), None)
    known: dict[str, Any] = {}
    if init is None or init.args.kwarg is not None:
        for base in node.bases:
            known |= of_class(stem, base.id, ours) if isinstance(base, ast.Name) else {}
    for argument, annotation, default in parameters(init) if init else ():
        if argument == "cfg" and isinstance(annotation, ast.Name) and init and init.args.kwarg is not None:
            known |= fields(stem, annotation.id)
        known |= dict(settable(argument, annotation, default, ours))
    return known


def parameters(function: ast.FunctionDef) -> Iterator[tuple[str, ast.expr | None, ast.expr | None]]:
    """(name, annotation, default) of every parameter."""
    given = [*function.args.posonlyargs, *function.args.args]
    defaults = [*[None] * (len(given) - len(function.args.defaults)), *function.args.defaults]
    for argument, default in zip([*given, *function.args.kwonlyargs], [*defaults, *function.args.kw_defaults], strict=True):
        yield argument.arg, argument.annotation, default


def fields(stem: str, name: str) -> dict[str, Any]:
    """The fields of a dataclass of timm's, with their types."""
    file = module(stem)
    if name in file.imported:
        return fields(file.imported[name], name)
    lines = file.classes[name].body if name in file.classes else []
    named = [(line.target.id, line.annotation, line.value) for line in lines if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)]
    return {key: hint for argument, annotation, default in named for key, hint in settable(argument, annotation, default)}


def settable(name: str, annotation: ast.expr | None, default: ast.expr | None, ours: bool = False) -> Iterator[tuple[str, Any]]:
    """(name, type) of an argument, or nothing if no plain value is one."""
    hint = hint_of(annotation) if annotation is not None else hint_of_default(default)
    if hint is not None and (ours or name not in OURS) and hint is not type(None):
        yield name, hint


def hint_of(node: ast.expr) -> Any:
    """The type that an annotation means to a plain value; None if no plain value has it."""
    if isinstance(node, ast.Constant):
        return type(None) if node.value is None else hint_of(ast.parse(str(node.value), mode="eval").body)
    if isinstance(node, ast.BinOp):
        return union(map(hint_of, (node.left, node.right)))
    if not isinstance(node, ast.Subscript):
        return PLAIN.get(last_name(node))
    kind, items = last_name(node.value), node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    if kind == "Literal":
        return Literal[tuple(ast.literal_eval(item) for item in items)]
    if kind in UNIONS:
        return union([*map(hint_of, items), *([type(None)] if kind == "Optional" else [])])
    return list_of(items) if kind in LISTS else None


def list_of(items: list[ast.expr]) -> Any:
    """The type of a list whose items have these annotations; Any item where no plain value has the type."""
    plain: Any = tuple(... if isinstance(item, ast.Constant) and item.value is ... else hint_of(item) or Any for item in items)
    return types.GenericAlias(tuple, (*plain, ...) if len(plain) == 1 else plain)


def hint_of_default(node: ast.expr | None) -> Any:
    """The type of an argument without annotation, from its default: Any if that says nothing."""
    try:
        value = ast.literal_eval(node) if node is not None else None
    except ValueError:
        return None  # a class or a function
    if isinstance(value, tuple | list):
        return tuple[Any, ...]
    return {bool: bool, int: int | float, float: float, str: str}.get(type(value), Any)


def union(hints: Iterable[Any]) -> Any:
    """The type of a value of one of several types; None if no plain value has any of them."""
    plain = [hint for hint in hints if hint is not None]
    if not plain or set(plain) == {type(None)}:
        return None
    return Any if Any in plain else reduce(operator.or_, plain)


def last_name(node: ast.expr) -> str:
    """`float` of `float`, `Tuple` of `typing.Tuple`; empty for what is no name."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


if __name__ == "__main__":
    ends_with_its_reader(print)("\n".join(f"timm/{name}" for name in files()))
