"""The five axes of a grid, each read from its entries: every choice of model, pruning method, data, recipe and seed, checked once.

Cells are composed from choices, so a grid of ten thousand cells validates its few dozen choices and no more.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, Literal, TypeVar

from harness.grid.expansion import choices, given_fields, variants
from harness.grid.labels import label_problem, look
from harness.grid.paths import absolute_path, path_problem, short_names
from harness.grid.resources import KEY, Resources, read_resources
from harness.grid.yaml_source import Node, Report
from jobs.experiment.identity import canonical, data_identity, model_identity, plain
from jobs.experiment.limits import DATA, Violation, data_conflicts, violations
from jobs.experiment.pretrained import pretrained_sha256
from jobs.experiment.specs import DataSpec, ModelSpec, RecipeSpec
from models.pruning.base import PruningMethod
from models.registry import (
    MODELS,
    OptionError,
    effective_options,
    model_config,
    model_label,
    model_options,
    model_problem,
    refused_options,
    weights_problem,
)
from models.text import valid_names
from models.typed import Limit, SettingsError, build, fields_of, shown

MOST_SEEDS = 10_000  # a larger number is taken for one seed whose brackets were forgotten

Sha256 = Callable[[Path], str | None]  # the digest of a file's content; None if it cannot be read
Value_co = TypeVar("Value_co", covariant=True)
Value = TypeVar("Value")
Spec = TypeVar("Spec", DataSpec, RecipeSpec)


@dataclass(frozen=True, kw_only=True)
class Choice(Generic[Value_co]):
    """One value of an axis, and its line in the grid."""

    value: Value_co
    identity: str  # canonical text of the settings that decide a result
    names: tuple[str, ...] = ()  # that `exclude` may use, the label first
    fields: Mapping[str, Any]  # all of them, as plain values, for `exclude`
    line: int
    key: str
    label: str | None = None  # the user's own
    entry: Node | None = None  # the grid's text that it was read from
    resources: Resources | None = None  # of its jobs, in place of the profile's; of a model or a pruning
    of_data: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # of a recipe with a preset: fields of data that the preset gives

    def line_of(self, field: str) -> int:
        """The line of one of its fields; the line of the entry if the field is not given."""
        return self.entry.line_of([field]) if self.entry else self.line


@dataclass(frozen=True, kw_only=True)
class ReadSpec(Generic[Spec]):
    """A data set or recipe as an entry gives it."""

    value: Spec
    entry: Node
    key: str
    preset: str | None = None
    written: frozenset[str] = frozenset()  # the fields that the entry itself gives


@dataclass(frozen=True, kw_only=True)
class Axes:
    """The choices of every axis, by the name that `exclude` gives the axis. Cells are their product, the seed varying fastest."""

    model: Sequence[Choice[ModelSpec]]
    pruning: Sequence[Choice[PruningMethod]]
    data: Sequence[Choice[DataSpec]]
    recipe: Sequence[Choice[RecipeSpec]]
    seed: Sequence[Choice[int]]

    def by_name(self) -> dict[str, Sequence[Choice[object]]]:
        """The axes by their names, in the sequence of `product`."""
        return {"model": self.model, "pruning": self.pruning, "data": self.data, "recipe": self.recipe, "seed": self.seed}


def entries(node: Node | None, key: str, report: Report) -> list[tuple[Node, str]]:
    """The entries of an axis with their keys; a value that is not a list is the only entry."""
    if node is None or node.value is None or node.value == []:
        report.add(node.line if node else 1, key, "missing: the grid needs at least one entry")
        return []
    if isinstance(node.value, list):
        return [(item, f"{key}[{index}]") for index, item in enumerate(node.value)]
    return [(node, key)]


def named_entries(
    node: Node | None, key: str, word: str, valid: Iterable[str], problem: Callable[[str], str | None], report: Report
) -> Iterator[tuple[Node, str, str]]:
    """Entries of models as (mapping, key, name). `problem`: why a name is none, or None."""
    for entry, path in entries(node, key, report):
        yield from named_entry(entry, path, word, valid, problem, report)


def named_entry(
    entry: Node, path: str, word: str, valid: Iterable[str], problem: Callable[[str], str | None], report: Report
) -> Iterator[tuple[Node, str, str]]:
    """An entry of models or pruning as (mapping, key, name). It is a name, or a mapping with a name or several names under `word`.

    `problem`: why a name is none, or None.
    """
    if isinstance(entry.value, dict) and word not in entry.value:
        report.add(entry.line, path, f"needs {word}:{valid_names('', valid)}")
        return
    given = entry.value[word] if isinstance(entry.value, dict) else entry
    mapping = entry if isinstance(entry.value, dict) else Node(value={}, line=entry.line)
    where = f"{path}.{word}" if isinstance(entry.value, dict) else path
    for name in choices(given, str, where, report):
        if (wrong := problem(name)) is None:
            yield mapping, path, name
        else:
            report.add(given.line, where, wrong)


def own_label(entry: Node, key: str, count: int, report: Report) -> str | None:
    """The label that the user gave to an entry, which must then stand for one choice."""
    assert isinstance(entry.value, dict)
    node = entry.value.get("label")
    if node is None:
        return None
    if not isinstance(node.value, str):
        report.add(node.line, f"{key}.label", f"expected text, got {shown(node.plain)}{node.remark or _in_quotes(node)}")
    elif problem := label_problem(node.value):
        report.add(node.line, f"{key}.label", problem)
    elif count > 1:
        report.add(node.line, f"{key}.label", f"one label for {count} choices; write an entry for each, or leave the label out")
    else:
        return node.value
    return None


def _in_quotes(node: Node) -> str:
    return f"; write '{node.text}', in quotes" if node.text else ""


def distinct(every: Iterable[Choice[Value]], report: Report) -> list[Choice[Value]]:
    """The choices, each once. A choice that is given twice is a mistake, except dense; so are two choices whose labels look the same."""
    kept: dict[str, Choice[Value]] = {}
    labels: dict[str, Choice[Value]] = {}
    for choice in every:
        label = choice.names[0] if choice.names else choice.identity
        first = kept.setdefault(choice.identity, choice)
        if first is not choice:
            if not isinstance(choice.value, PruningMethod) or choice.value.name != "dense":
                report.add(choice.line, choice.key, f"{first.names[0] if first.names else 'this'} is already in the grid, on line {first.line}")
            elif choice.resources != first.resources:
                report.add(choice.line, f"{choice.key}.{KEY}", f"dense runs once: give it the same {KEY} as on line {first.line}, or write it once")
        elif choice.names and choice.label is None and (problem := label_problem(label)):
            report.add(choice.line, choice.key, f"the label that its options make {problem}; give it a label of its own")
        elif choice.names and (same := labels.setdefault(look(label), choice)) is not choice:
            report.add(choice.line, choice.key, _same_label(label, same))
    return list(kept.values())


def _same_label(label: str, first: Choice[Value]) -> str:
    if label == first.names[0]:
        return f"the label {label!r} is already used on line {first.line}"
    return f"the label {label!r} looks like {first.names[0]!r} of line {first.line}; labels must differ in more than case, spaces or alphabet"


def read_models(node: Node | None, folder: Path, report: Report, sha256: Sha256 = pretrained_sha256) -> list[Choice[ModelSpec]]:
    """Every model and variant. Relative paths of weights are looked for in `folder`, the grid's own, then in the current one."""
    models = []
    of_entry: dict[str, Resources | None] = {}  # read once, although an entry may have several names
    for entry, key, name in named_entries(node, "models", "name", MODELS, model_problem, report):
        options = variants(entry, fields_of(model_options(name)), key, report, apart=("name", "label", KEY), refused=refused_options(name))
        label = own_label(entry, key, len(options), report)
        if key not in of_entry:
            of_entry[key] = read_resources(entry, key, report)
        made = (_model(entry, key, name, given, folder, label, report, sha256) for given in options)
        models += [dataclasses.replace(choice, resources=of_entry[key]) for choice in made if choice]
    return distinct(without_copies(named_by_files(models), report), report)


def named_by_files(models: Sequence[Choice[ModelSpec]]) -> list[Choice[ModelSpec]]:
    """The models; where files of weights have the same name, a label that was derived names the folders that tell them apart."""
    files: dict[str, set[Path]] = {}
    for choice in models:
        if path := choice.value.options.get("pretrained"):
            files.setdefault(choice.value.name, set()).add(Path(path))
    names = {model: short_names(sorted(paths)) for model, paths in files.items()}
    return [_named_by_file(choice, names[choice.value.name]) if "pretrained" in choice.value.options else choice for choice in models]


def _named_by_file(choice: Choice[ModelSpec], names: Mapping[Path, str]) -> Choice[ModelSpec]:
    spec = choice.value
    if choice.label is not None:
        return choice
    label = model_label(spec.name, spec.options, names[Path(spec.options["pretrained"])])
    return dataclasses.replace(choice, value=dataclasses.replace(spec, label=label), names=(label, spec.name))


def without_copies(models: Sequence[Choice[ModelSpec]], report: Report) -> list[Choice[ModelSpec]]:
    """The models without those whose file holds the same weights as the file of a model before; the report has a note of each."""
    first: dict[str, Choice[ModelSpec]] = {}
    kept = []
    for choice in models:
        path, same = choice.value.options.get("pretrained"), first.setdefault(choice.identity, choice)
        if path is None or path == same.value.options["pretrained"]:
            kept.append(choice)
        else:
            report.note(
                choice.line, choice.key, f"note: {path} has the same content as {same.value.options['pretrained']}: {same.value.label} runs for both"
            )
    return kept


def _model(
    entry: Node, key: str, name: str, written: Mapping[str, Any], folder: Path, label: str | None, report: Report, sha256: Sha256
) -> Choice[ModelSpec] | None:
    given_file = written.get("pretrained")
    if isinstance(given_file, str) and (problem := path_problem(given_file)):
        report.add(entry.line_of(["pretrained"]), f"{key}.pretrained", problem)
        return None
    if problem := weights_problem(name, written):
        report.add(entry.line_of(["name"]), f"{key}.name" if "name" in given_fields(entry) else key, problem)
        return None
    file = absolute_path(given_file, folder) if given_file is not None else None
    given = dict(written) if file is None else {**written, "pretrained": str(file)}
    try:
        config = model_config(name, given)
    except OptionError as error:
        for path, message in error.errors:
            report.add(entry.line_of(path), ".".join((key, *path)), message)
        return None
    digest = None if file is None else sha256(file)
    spec = ModelSpec(name=name, options=effective_options(name, given), label=label or model_label(name, given), pretrained_sha256=digest)
    return Choice(
        value=spec,
        identity=canonical(model_identity(spec)),
        names=(spec.label, name),
        fields=plain(config) | ({} if file is None else {"pretrained": written["pretrained"]}),
        line=entry.line,
        key=key,
        label=label,
        entry=entry,
    )


def read_data(node: Node | None, folder: Path, report: Report) -> list[Choice[DataSpec]]:
    """Every data set; digits if the grid names none. Relative paths are looked for in `folder`, the grid's own, then in the current one."""
    sets = read_specs(node, "data", DataSpec, DATA, data_conflicts, report)
    _check_names([(read.value, read.entry, read.key) for read in sets], report)
    return distinct([spec_choice(read, with_absolute_paths(read.value, folder), data_identity) for read in sets], report)


def _check_names(sets: Iterable[tuple[DataSpec, Node, str]], report: Report) -> None:
    """Reports names of data sets that cannot be seen as they are, and two names that look the same."""
    seen: dict[str, tuple[str, int]] = {}
    for data, entry, key in sets:
        if data.name is None:
            paths = [(field, path) for field, path in (("path", data.path), ("test_path", data.test_path)) if path is not None]
            for field, problem in [(field, problem) for field, path in paths if (problem := label_problem(path) or path_problem(path))]:
                report.add(entry.line_of([field]), f"{key}.{field}", f"{problem}, or give the data a name, which takes the place of the paths")
            continue
        line = entry.line_of(["name"])
        first, first_line = seen.setdefault(look(data.name), (data.name, line))
        if problem := label_problem(data.name):
            report.add(line, f"{key}.name", problem)
        elif first != data.name:
            report.add(line, f"{key}.name", f"the name {data.name!r} looks like {first!r} of line {first_line}; write one of them in both entries")


def with_absolute_paths(data: DataSpec, folder: Path) -> DataSpec:
    """`data` with absolute paths. The paths as the user wrote them name a set without a name, so that ids do not depend on the grid's folder."""
    given = [path for path in (data.path, data.test_path, data.test_labels) if path is not None]
    if not given:
        return data

    def absolute(path: str | None) -> str | None:
        return None if path is None else str(absolute_path(path, folder))

    path, test_path, test_labels = (absolute(path) for path in (data.path, data.test_path, data.test_labels))
    return dataclasses.replace(data, name=data.name or ":".join(given), path=path, test_path=test_path, test_labels=test_labels)


def read_specs(
    node: Node | None,
    key: str,
    spec: type[Spec],
    limits: Mapping[str, Limit],
    conflicts: Callable[[Spec], Iterable[Violation]],
    report: Report,
    presets: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> list[ReadSpec[Spec]]:
    """Data sets or recipes. Fields are held against each other only if each of them is right alone.

    presets: values by name; an entry that names one under `preset` has its values where it gives none.
    """
    right: list[ReadSpec[Spec]] = []
    hints = fields_of(spec) | ({"preset": Literal[tuple(presets)]} if presets else {})
    if node is None or node.value is None:  # left out or left empty: the defaults
        node = Node(value={}, line=node.line if node else 1)
    for entry, path in entries(node, key, report):
        before = len(report.problems)
        values = []
        for written in variants(entry, hints, path, report):
            if "source" not in written and "source" in given_fields(entry):  # a wrong one, which has been reported; options are a source's own
                written.pop("options", None)
            preset = written.pop("preset", None)
            given = {**presets[preset], **written} if preset else written
            try:
                value = build(spec, given)
            except SettingsError as error:
                _add_mistakes(error, entry, path, report)
                continue
            values.append(ReadSpec(value=value, entry=entry, key=path, preset=preset, written=frozenset(written)))
        broken = [violation for read in values for violation in violations(read.value, limits)]
        if not broken and len(report.problems) == before:
            broken = [violation for read in values for violation in conflicts(read.value)]
        for violation in broken:
            report.add(entry.line_of([violation.field]), f"{path}.{violation.field}", str(violation))
        if len(report.problems) == before:
            right += values
    return right


def _add_mistakes(error: SettingsError, entry: Node, key: str, report: Report) -> None:
    for field, message in error.errors:
        report.add(entry.line_of(field), ".".join((key, *field)), message)


def spec_choice(read: ReadSpec[Spec], value: Spec, identity: Callable[[Spec], dict[str, Any]]) -> Choice[Spec]:
    """The choice of a data set or recipe that was read, with a value that may have been completed since."""
    return Choice(value=value, identity=canonical(identity(value)), fields=plain(value), line=read.entry.line, key=read.key, entry=read.entry)


def read_seeds(node: Node | None, report: Report) -> list[Choice[int]]:
    """The seeds: a list, or a number n for 0 to n - 1."""
    advice = f"expected a list such as [0, 1, 2], or a number n, at most {MOST_SEEDS}, for the seeds 0 to n - 1"
    if node is None or node.value is None or node.value == []:
        report.add(node.line if node else 1, "seeds", f"missing: {advice}")
        return []
    if type(node.value) is int and 0 < node.value <= MOST_SEEDS:
        return [_seed(seed, node.line) for seed in range(node.value)]
    if not isinstance(node.value, list):
        report.add(node.line, "seeds", f"{advice}{node.remark}")
        return []
    seeds: dict[int, Choice[int]] = {}
    for index, item in enumerate(node.value):
        if type(item.value) is not int or not 0 <= item.value < 2**32:  # NumPy takes no larger seed
            report.add(item.line, f"seeds[{index}]", f"expected a whole number from 0 to {2**32 - 1}{item.remark}")
        elif item.value in seeds:
            report.add(item.line, f"seeds[{index}]", f"seed {item.value} is given twice")
        else:
            seeds[item.value] = _seed(item.value, item.line)
    return list(seeds.values())


def _seed(seed: int, line: int) -> Choice[int]:
    return Choice(value=seed, identity=str(seed), names=(str(seed),), fields={}, line=line, key="seeds")
