"""The schemas of the entries of `models:` and `pruning:`: a name, or a mapping whose other keys depend on the name."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Final

from harness.grid.methods import CHAIN
from harness.grid.resources import KEY
from harness.schemas.descriptions import meanings, rows_of
from harness.schemas.values import (
    Schema,
    Texts,
    choices_schema,
    comments,
    defaults,
    known_or_other,
    nested_schemas,
    reference,
    settings_schema,
    value_schema,
    zip_schema,
)
from models.pruning.base import PruningMethod
from models.pruning.registry import METHODS, required
from models.pruning.scope import GROUPS
from models.pruning.units import KINDS
from models.registry import MODELS
from models.timm_models import PREFIX, TimmConfig
from models.typed import ABOVE_0, AT_LEAST_0, AT_LEAST_1, FRACTION, Limit

LABEL: Final[Schema] = {"type": "string", "minLength": 1, "description": "the name in tables, in place of the one that the options make"}
RESOURCES: Final[Schema] = {
    "description": "what the jobs of this entry need in place of the profile's resources; it enters no id",
    "allOf": [reference("Resources")],
}
OF_TIMM: Final = f"^{PREFIX}."
PROBABILITY: Final = Limit(words="from 0 to 1", holds=lambda value: 0 <= value <= 1)
KNOBS: Final[Mapping[str, Limit]] = {  # the bounds of knobs, which the methods check themselves; a test holds the two against each other
    **dict.fromkeys(("sparsity", "initial_sparsity", "ratio", "drop_fraction", "epsilon"), FRACTION),
    **dict.fromkeys(("batches", "blocks", "block", "interval", "search_epochs"), AT_LEAST_1),
    **dict.fromkeys(("rewind_step", "l1", "rounds"), AT_LEAST_0),
    **dict.fromkeys(("begin_fraction", "end_fraction"), PROBABILITY),
    "damping": ABOVE_0,
    "fifo": Limit(words="2 or more", holds=lambda value: value >= 2),
    "r": ABOVE_0,
    "rate": Limit(words="above 0 and below 1", holds=lambda value: 0 < value < 1),
}
SHARED: Final = {
    "sparsity": "fraction of zeros among the prunable weights at the end",
    "scope": "global: one threshold for all weights; layer: one for each parameter",
    "groups": "the groups of parameters that are pruned",
    "ratio": "fraction of the units that go",
    "units": "the kinds of units that may go",
    "batches": "global batches of training images that are read",
}


def model_definitions() -> dict[str, Schema]:
    """An entry of `models:`, with a definition for each family and for each variant."""
    families: dict[type, list[str]] = {}
    for name, entry in MODELS.items():
        families.setdefault(type(entry.config), []).append(name)
    rules = [for_names("name", {"enum": names}, reference(family.__name__)) for family, names in families.items()]
    timm = {"properties": {name: part for name, part in family_schema(TimmConfig)["properties"].items() if name != "zip"}}
    rules.append(for_names("name", {"pattern": OF_TIMM}, timm))
    model = entry_schema("name", known_or_other(MODELS, OF_TIMM), rules)
    variants = {name: part for family in families for name, part in nested_schemas(family).items()}
    return {"model": model} | {family.__name__: family_schema(family) for family in families} | variants


def family_schema(config: type) -> Schema:
    """The mapping of a model of a family: its options, each with what docs/models.md says of it."""
    family = config.__name__.removesuffix("Config")
    rows = [row for row in rows_of("models.md") if row.heading == "Options" and family in row.cells[1].split(", ")]
    texts = Texts(descriptions=comments(config) | {row.name: row.meaning for row in rows})
    return settings_schema(config, texts, apart={"name": {}, "label": LABEL, KEY: RESOURCES})


def pruning_definitions() -> dict[str, Schema]:
    """An entry of `pruning:`, a method or a chain of methods, with a definition for each method."""
    rules = [for_names("method", {"enum": [name]}, reference(f"pruning_{name}")) for name in METHODS]
    name = known_or_other(METHODS)
    of_the_chain: Schema = {"anyOf": [{"required": ["label"]}, {"required": [KEY]}]}
    link: Schema = {"anyOf": [name, {"allOf": [reference("method")], "type": "object", "not": of_the_chain}]}
    parts: Schema = choices_schema(tuple[int, ...], value_schema(tuple[int, ...]))
    chain: Schema = {
        "type": "object",
        "required": [CHAIN],
        "properties": {
            CHAIN: {"description": "methods to run one after another", "type": "array", "minItems": 1, "items": link},
            "split": {"description": "how the fine-tuning epochs are divided among them", **parts},
            "label": LABEL,
            KEY: RESOURCES,
            "zip": zip_schema(["split"]),
        },
        "additionalProperties": False,
    }
    methods = {f"pruning_{name}": method_schema(name, method) for name, method in METHODS.items()}
    return {"pruning": {"anyOf": [reference("method"), chain]}, "method": entry_schema("method", name, rules)} | methods


def method_schema(name: str, method: type[PruningMethod]) -> Schema:
    """The mapping of a method: its knobs."""
    described = SHARED | comments(method) | meanings("pruning.md", "Gradual knobs")
    texts = Texts(descriptions=described, defaults=defaults(method), limits=KNOBS, names={"groups": GROUPS, "units": KINDS})
    schema = settings_schema(method, texts, apart={"method": {"description": purposes()[name]}, "label": LABEL, KEY: RESOURCES})
    missing = [field.name for field in fields(method) if required(field)]
    return schema | ({"anyOf": [{"required": missing}, {"required": ["zip"]}]} if missing else {})


def purposes() -> dict[str, str]:
    """What each method removes."""
    return {row.name: row.meaning for row in rows_of("pruning.md") if row.heading == "Pruning methods"}


def for_names(word: str, names: Schema, schema: Schema) -> Schema:
    """`schema`, for mappings that give one of the names, or several of which some are these."""
    given: Schema = {"anyOf": [{"type": "string", **names}, {"type": "array", "contains": names}]}
    return {"if": {"required": [word], "properties": {word: given}}, "then": schema}


def entry_schema(word: str, name: Schema, rules: Sequence[Schema]) -> Schema:
    """An entry: a name, a list of names, or a mapping that follows the rule of its name."""
    names: Schema = {"type": "array", "minItems": 1, "items": name}
    own = {word: {"anyOf": [name, names]}, "label": LABEL, KEY: RESOURCES}
    mapping: Schema = {"type": "object", "required": [word], "properties": own, "allOf": list(rules)}
    return {"anyOf": [name, names, mapping]}


def one_or_more(entry: Schema) -> Schema:
    """An entry, or a list of entries."""
    return {"anyOf": [entry, {"type": "array", "minItems": 1, "items": entry}]}


def only_known(word: str, names: Iterable[str], *patterns: str) -> Schema:
    """Entries whose names are known: those of a grid without plug-ins. Further entries of a chain are not looked at."""
    known: Schema = {"anyOf": [{"enum": list(names)}, *({"pattern": pattern} for pattern in patterns)]}
    entry: Schema = {
        "if": {"type": "string"},
        "then": known,
        "else": {"properties": {word: {"if": {"type": "string"}, "then": known, "else": {"items": known}}}},
    }
    return {"if": {"type": "array"}, "then": {"items": {"if": {"type": "array"}, "then": {"items": known}, "else": entry}}, "else": entry}
