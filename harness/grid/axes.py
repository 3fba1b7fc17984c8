"""The five axes of a grid, each read from its entries: every choice of model, pruning method, data, recipe and seed, checked once.

Cells are composed from choices, so a grid of ten thousand cells validates its few dozen choices and no more.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.grid.expansion import choices, given_fields, variants
from harness.grid.yaml_source import Node, Report
from jobs.experiment.identity import canonical, data_identity, method_identity, model_identity, plain, recipe_identity
from jobs.experiment.limits import DATA, RECIPE, Limit, broken, data_clashes, recipe_clashes
from jobs.experiment.specs import DataSpec, ModelSpec, RecipeSpec
from jobs.experiment.typed import build, fields_of
from models.pruning.base import PruningMethod
from models.pruning.registry import METHODS, method_label, required
from models.registry import MODELS, OptionError, effective_options, model_config, model_label, model_options
from models.text import valid_names

MOST_SEEDS = 10_000  # counted from 0; more are one seed of which the brackets were forgotten


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One value of an axis."""

    value: Any  # ModelSpec, PruningMethod, DataSpec, RecipeSpec or a seed
    identity: str  # canonical text of what decides a result
    names: tuple[str, ...]  # that `exclude` may use; the label first
    fields: Mapping[str, Any]  # all of them, as plain values, for `exclude`
    line: int
    key: str
    label: str | None = None  # the user's own
    entry: Node | None = None  # as it stands in the file

    def line_of(self, field: str) -> int:
        """The line of one of its fields; its own where the field is not given."""
        return self.entry.line_of([field]) if self.entry else self.line


def entries(node: Node | None, key: str, report: Report) -> list[tuple[Node, str]]:
    """The entries of an axis with their keys; one that is not a list is its only entry."""
    if node is None or node.value is None or node.value == []:
        report.add(node.line if node else 1, key, "missing: the grid needs at least one entry")
        return []
    if isinstance(node.value, list):
        return [(item, f"{key}[{index}]") for index, item in enumerate(node.value)]
    return [(node, key)]


def named_entries(node: Node | None, key: str, word: str, valid: Iterable[str], report: Report) -> list[tuple[Node, str, str]]:
    """Entries of models or pruning as (mapping, key, name): `name`, or a mapping with the name, or several of them, under `word`."""
    found = []
    for entry, path in entries(node, key, report):
        if isinstance(entry.value, dict) and word not in entry.value:
            report.add(entry.line, path, f"needs {word}:{valid_names('', valid)}")
            continue
        given = entry.value[word] if isinstance(entry.value, dict) else entry
        mapping = entry if isinstance(entry.value, dict) else Node(value={}, line=entry.line)
        where = f"{path}.{word}" if isinstance(entry.value, dict) else path
        for name in choices(given, str, where, report):
            if name in valid:
                found.append((mapping, path, name))
            else:
                report.add(given.line, where, f"unknown {'model' if word == 'name' else 'method'} {name!r}{valid_names(name, valid)}")
    return found


def own_label(entry: Node, key: str, count: int, report: Report) -> str | None:
    """The label that the user gave to an entry, which must then stand for one choice."""
    assert isinstance(entry.value, dict)
    node = entry.value.get("label")
    if node is None:
        return None
    if not isinstance(node.value, str) or not node.value:
        report.add(node.line, f"{key}.label", "expected text")
    elif count > 1:
        report.add(node.line, f"{key}.label", f"one label for {count} choices; write an entry for each, or leave the label out")
    else:
        return node.value
    return None


def distinct(found: list[Choice], report: Report) -> list[Choice]:
    """The choices, each once. The same one from two places is a mistake, except dense; so is one label for two."""
    kept: dict[str, Choice] = {}
    labels: dict[str, Choice] = {}
    for choice in found:
        label = choice.names[0] if choice.names else choice.identity
        first = kept.setdefault(choice.identity, choice)
        if first is not choice:
            if not isinstance(choice.value, PruningMethod) or choice.value.name != "dense":
                report.add(choice.line, choice.key, f"{first.names[0] if first.names else 'this'} is in the grid already, by line {first.line}")
        elif labels.setdefault(label, choice) is not choice:
            report.add(choice.line, choice.key, f"the label {label!r} is taken, by line {labels[label].line}")
    return list(kept.values())


def read_models(node: Node | None, report: Report) -> list[Choice]:
    """Every model and variant."""
    found = []
    for entry, key, name in named_entries(node, "models", "name", MODELS, report):
        options = variants(entry, fields_of(model_options(name)), key, report, apart=("name", "label"))
        label = own_label(entry, key, len(options), report)
        found += [choice for given in options if (choice := _model(entry, key, name, given, label, report))]
    return distinct(found, report)


def _model(entry: Node, key: str, name: str, given: Mapping[str, Any], label: str | None, report: Report) -> Choice | None:
    try:
        config = model_config(name, given)
    except OptionError as error:
        for path, message in error.errors:
            report.add(entry.line_of(path), ".".join((key, *path)), message)
        return None
    except ValueError as error:
        report.add(entry.line, key, str(error))
        return None
    spec = ModelSpec(name=name, options=effective_options(name, given), label=label or model_label(name, given))
    return Choice(
        value=spec,
        identity=canonical(model_identity(spec)),
        names=(spec.label, name),
        fields=plain(config),
        line=entry.line,
        key=key,
        label=label,
        entry=entry,
    )


def read_pruning(node: Node | None, report: Report) -> list[Choice]:
    """Every method with every choice of its knobs; dense once."""
    found = []
    for entry, key, name in named_entries(node, "pruning", "method", METHODS, report):
        knobs = variants(entry, fields_of(METHODS[name]), key, report, apart=("method", "label"))
        label = own_label(entry, key, len(knobs), report)
        found += [choice for given in knobs if (choice := _method(entry, key, name, given, label, report))]
    return distinct(found, report)


def _method(entry: Node, key: str, name: str, given: Mapping[str, Any], label: str | None, report: Report) -> Choice | None:
    missing = [field.name for field in dataclasses.fields(METHODS[name]) if required(field) and field.name not in given]
    if missing:
        if unsaid := [knob for knob in missing if knob not in given_fields(entry)]:
            report.add(entry.line, key, f"{name} needs {', '.join(unsaid)}")
        return None
    try:
        method = build(METHODS[name], given)
    except ValueError as error:
        knob = next((knob for knob in given if str(error).startswith(knob)), None)
        report.add(entry.line_of([knob] if knob else []), f"{key}.{knob}" if knob else key, str(error))
        return None
    names = (label or method_label(method), name)
    identity, fields = canonical(method_identity(method)), plain(method)
    return Choice(value=method, identity=identity, names=names, fields=fields, line=entry.line, key=key, label=label, entry=entry)


def read_data(node: Node | None, folder: Path, report: Report) -> list[Choice]:
    """Every data set; digits where the grid names none. Relative paths are looked for in `folder`, the grid's own, then in the current one."""
    return _read_specs(node, "data", DataSpec, data_identity, DATA, data_clashes, report, lambda data: placed(data, folder))


def placed(data: DataSpec, folder: Path) -> DataSpec:
    """`data` with absolute paths. What the user wrote becomes the set's name, if it has none, so that ids do not depend on where a grid lies."""
    given = [path for path in (data.path, data.test_path) if path is not None]
    if not given:
        return data

    def place(path: str | None) -> str | None:
        if path is None:
            return None
        here = Path(path).expanduser()
        return str((folder / here if (folder / here).exists() else here).absolute())

    return dataclasses.replace(data, name=data.name or ":".join(given), path=place(data.path), test_path=place(data.test_path))


def read_recipes(node: Node | None, ranks: int, report: Report) -> list[Choice]:
    """Every recipe; the default where the grid has none. `ranks` share a batch."""
    return _read_specs(node, "recipe", RecipeSpec, recipe_identity, RECIPE, lambda recipe: recipe_clashes(recipe, ranks), report)


def _read_specs(
    node: Node | None,
    key: str,
    spec: type,
    identity: Callable[[Any], dict[str, Any]],
    limits: Mapping[str, Limit],
    clashes: Callable[[Any], Iterable[tuple[str, str]]],
    report: Report,
    finish: Callable[[Any], Any] = lambda value: value,
) -> list[Choice]:
    """Choices of data or recipes. Fields are held against each other only where each of them is right; `finish` has the last word on a right one."""
    found = []
    for entry, path in entries(node or Node(value={}, line=1), key, report):
        before = len(report.problems)
        values = [build(spec, given) for given in variants(entry, fields_of(spec), path, report)]
        faults = [fault for value in values for fault in broken(value, limits)]
        if not faults and len(report.problems) == before:
            faults = [fault for value in values for fault in clashes(value)]
        for name, message in faults:
            report.add(entry.line_of([name]), f"{path}.{name}", message)
        if len(report.problems) == before:
            values = [finish(value) for value in values]
            place = {"names": (), "line": entry.line, "key": path, "entry": entry}
            found += [Choice(value=value, identity=canonical(identity(value)), fields=plain(value), **place) for value in values]
    return distinct(found, report)


def read_seeds(node: Node | None, report: Report) -> list[Choice]:
    """The seeds: a list, or a number n for 0 to n - 1."""
    advice = f"expected a list such as [0, 1, 2], or a number n, at most {MOST_SEEDS}, for the seeds 0 to n - 1"
    if node is None or node.value is None or node.value == []:
        report.add(node.line if node else 1, "seeds", f"missing: {advice}")
        return []
    if type(node.value) is int and 0 < node.value <= MOST_SEEDS:
        return [_seed(seed, node.line) for seed in range(node.value)]
    if not isinstance(node.value, list):
        report.add(node.line, "seeds", advice)
        return []
    found: dict[int, Choice] = {}
    for index, item in enumerate(node.value):
        if type(item.value) is not int or not 0 <= item.value < 2**32:  # NumPy takes no larger seed
            report.add(item.line, f"seeds[{index}]", f"expected a whole number from 0 to {2**32 - 1}")
        elif item.value in found:
            report.add(item.line, f"seeds[{index}]", f"seed {item.value} is given twice")
        else:
            found[item.value] = _seed(item.value, item.line)
    return list(found.values())


def _seed(seed: int, line: int) -> Choice:
    return Choice(value=seed, identity=str(seed), names=(str(seed),), fields={}, line=line, key="seeds")
