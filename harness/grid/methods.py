"""`pruning:` of a grid: methods with their knobs, and chains of methods."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from harness.grid.axes import Choice, distinct, entries, named_entry, own_label
from harness.grid.expansion import MOST_CHOICES, given_fields, variants
from harness.grid.resources import KEY, read_resources
from harness.grid.yaml_source import Node, Report
from jobs.experiment.identity import canonical, method_identity, plain
from models.plugins.installed import installed_names
from models.pruning.base import PruningMethod
from models.pruning.chain import Chain
from models.pruning.registry import METHODS, method_label, required
from models.text import valid_names
from models.typed import SettingsError, build, fields_of, shown

CHAIN = "chain"  # the key of an entry that lists methods to run one after another


def read_pruning(node: Node | None, report: Report) -> list[Choice[PruningMethod]]:
    """Every method and every chain, with every choice of their knobs; dense once."""
    methods: list[Choice[PruningMethod]] = []
    for entry, key in entries(node, "pruning", report):
        of_chain = isinstance(entry.value, dict) and CHAIN in entry.value
        resources = read_resources(entry, key, report)
        made = _chains(entry, key, report) if of_chain else _methods(entry, key, report)
        methods += [dataclasses.replace(choice, resources=resources) for choice in made]
    return distinct(methods, report)


def _methods(entry: Node, key: str, report: Report) -> list[Choice[PruningMethod]]:
    """The methods of an entry that is no chain."""
    methods: list[Choice[PruningMethod]] = []
    for mapping, path, name in named_entry(entry, key, "method", METHODS, method_problem, report):
        knobs = variants(mapping, fields_of(METHODS[name]), path, report, apart=("method", "label", KEY))
        label = own_label(mapping, path, len(knobs), report)
        methods += [choice for given in knobs if (choice := _method(mapping, path, name, given, label, report))]
    return methods


def method_problem(name: str) -> str | None:
    """Why there is no method of this name; None if there is."""
    return None if name in METHODS else f"unknown method {name!r}{valid_names(name, dict.fromkeys([*METHODS, *installed_names('pruning')]))}"


def _method(entry: Node, key: str, name: str, given: Mapping[str, Any], label: str | None, report: Report) -> Choice[PruningMethod] | None:
    missing = [field.name for field in dataclasses.fields(METHODS[name]) if required(field) and field.name not in given]
    if missing:
        if absent := [knob for knob in missing if knob not in given_fields(entry)]:  # a knob that was given and is wrong has been reported
            report.add(entry.line, key, f"{name} needs {', '.join(absent)}")
        return None
    try:
        method = build(METHODS[name], given)
    except SettingsError as error:
        for path, message in error.errors:
            at = path or tuple(knob for knob in given if message.startswith(knob))[:1]  # a method's own messages begin with the knob
            report.add(entry.line_of(at), ".".join((key, *at)), message)
        return None
    return _choice(method, (name,), plain(method), entry, key, label)


def _choice(
    method: PruningMethod, names: tuple[str, ...], fields: Mapping[str, Any], entry: Node, key: str, label: str | None
) -> Choice[PruningMethod]:
    names = (label or method_label(method), *names)
    identity = canonical(method_identity(method))
    return Choice(value=method, identity=identity, names=names, fields=fields, line=entry.line, key=key, label=label, entry=entry)


def _chains(entry: Node, key: str, report: Report) -> list[Choice[PruningMethod]]:
    """The chains of an entry: every choice of its first method with every choice of the others. A chain of one method is that method."""
    assert isinstance(entry.value, dict)
    listed, known = entry.value[CHAIN], len(report.problems)
    others = {name: child for name, child in entry.value.items() if name != CHAIN}
    if "method" in others:
        report.add(others["method"].line, f"{key}.method", "an entry has a method or a chain, not both: write the method into the chain")
    if not isinstance(listed.value, list) or not listed.value:
        advice = "expected a list of methods, such as [{method: structured, ratio: 0.3}, {method: wanda, sparsity: 0.5}]"
        report.add(listed.line, f"{key}.{CHAIN}", f"{advice}, got {shown(listed.plain) if listed.value != [] else 'an empty list'}")
        return []
    links = [_links(item, f"{key}.{CHAIN}[{number}]", report) for number, item in enumerate(listed.value)]
    splits = variants(Node(value=others, line=entry.line), {"split": tuple[int, ...]}, key, report, apart=("label", "method", KEY))
    count = math.prod(map(len, links)) * len(splits)
    if count > MOST_CHOICES:
        report.add(entry.line, key, f"its lists stand for {count} chains, and an entry may have at most {MOST_CHOICES}; shorten them")
    label = own_label(entry, key, count, report)
    if len(report.problems) > known:
        return []
    return [
        choice
        for split in splits
        for methods in itertools.product(*links)
        if (choice := _chain(methods, split.get("split", ()), entry, key, label, report))
    ]


def _links(item: Node, key: str, report: Report) -> list[Choice[PruningMethod]]:
    """The choices of one method of a chain."""
    if isinstance(item.value, dict) and (own := [name for name in (CHAIN, "label", KEY) if name in item.value]):
        why = (
            f"the {own[0]} belongs to the chain: write it beside `chain`"
            if own[0] != CHAIN
            else "a chain holds no other chain: write all methods into one"
        )
        report.add(item.value[own[0]].line, f"{key}.{own[0]}", why)
        return []
    if isinstance(item.value, list):
        report.add(item.line, key, f"expected a method, got a list{valid_names('', METHODS)}")
        return []
    return _methods(item, key, report)


def _chain(
    links: Sequence[Choice[PruningMethod]], split: tuple[int, ...], entry: Node, key: str, label: str | None, report: Report
) -> Choice[PruningMethod] | None:
    if len(links) == 1 and len(split) < 2:
        method = links[0].value
        return _choice(method, (method.name,), plain(method), entry, key, label)
    try:
        method = Chain(methods=tuple(link.value for link in links), split=split)
    except ValueError as error:
        at = ".split" if str(error).startswith("split") else ""
        report.add(entry.line_of(["split"] if at else []), key + at, str(error))
        return None
    fields = {CHAIN: [link.value.name for link in links], "split": list(split)}
    return _choice(method, (CHAIN,), fields, entry, key, label)
