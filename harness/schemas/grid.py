"""The schema of a grid.yaml."""

from typing import Final

from harness.grid.axes import MOST_SEEDS
from harness.grid.exclude import NAME_KEYS
from harness.grid.labels import MOST_NAME, NAME
from harness.grid.read import KEYS
from harness.grid.tuning import MOST_TRIALS
from harness.schemas.cluster import cluster_schema, named_or, notify_schema, resources_schema
from harness.schemas.descriptions import meanings
from harness.schemas.entries import OF_TIMM, model_definitions, one_or_more, only_known, pruning_definitions
from harness.schemas.values import Schema, Texts, choices_schema, defaults, field_schema, reference, settings_schema
from jobs.experiment.limits import DATA, RECIPE
from jobs.experiment.presets import PRESETS
from jobs.experiment.sources import SOURCES
from jobs.experiment.specs import DataSpec, Distillation, RecipeSpec
from jobs.experiment.tuning import BUDGET, SEED, TUNABLE
from models.pruning.registry import METHODS
from models.registry import MODELS
from models.typed import annotated_fields_of, fields_of

DRAFT: Final = "http://json-schema.org/draft-07/schema#"  # which editors know best
REQUIRED: Final = ("name", "models", "pruning", "seeds")


def grid_schema() -> Schema:
    """The whole file. A grid without `plugins` may use no names but ours and timm's."""
    described = meanings("grid.md", "Top level")
    parts = {
        "name": {"type": "string", "pattern": f"^(?:{NAME.pattern})$", "maxLength": MOST_NAME},
        "data": or_nothing(one_or_more(reference("DataSpec"))),
        "recipe": or_nothing(one_or_more(reference("RecipeSpec"))),
        "tune": tune_schema(),
        "models": one_or_more(reference("model")),
        "pruning": one_or_more(reference("pruning")),
        "seeds": seeds_schema(),
        "exclude": exclude_schema(),
        "cluster": named_or(reference("ClusterSpec")),
        "notify": notify_schema(),
        "plugins": {"anyOf": [{"type": ["string", "null"], "minLength": 1}, {"type": "array", "items": {"type": "string", "minLength": 1}}]},
    }
    return {
        "$schema": DRAFT,
        "title": "grid.yaml of vssm-bench",
        "type": "object",
        "required": list(REQUIRED),
        "properties": {key: {"description": described[key], **parts[key]} for key in KEYS},
        "patternProperties": {"^x-": {"description": described["x-..."]}},
        "additionalProperties": False,
        "if": {"not": {"required": ["plugins"]}},
        "then": {
            "properties": {
                "models": only_known("name", MODELS, OF_TIMM),
                "pruning": only_known("method", METHODS),
                "data": only_known("source", SOURCES),
            }
        },
        "definitions": definitions(),
    }


def definitions() -> dict[str, Schema]:
    """The parts of the schema by name."""
    taught = Texts(descriptions=meanings("grid.md", "Distillation"), defaults=defaults(Distillation))
    specs = {
        "DataSpec": data_schema(),
        "RecipeSpec": recipe_schema(),
        "Distillation": settings_schema(Distillation, taught, without=["teacher_sha256"]),
    }
    return specs | {"ClusterSpec": cluster_schema(), "Resources": resources_schema()} | model_definitions() | pruning_definitions()


def or_nothing(schema: Schema) -> Schema:
    """The schema, or a key with nothing after it."""
    return {"anyOf": [*schema["anyOf"], {"type": "null"}]}


def data_schema() -> Schema:
    """An entry of `data:`."""
    return settings_schema(DataSpec, Texts(descriptions=meanings("grid.md", "Data"), defaults=defaults(DataSpec), limits=DATA))


def recipe_schema() -> Schema:
    """An entry of `recipe:`, with or without a preset."""
    presets = choices_schema(str, {"enum": list(PRESETS)})
    given = Texts(descriptions=meanings("grid.md", "Recipe"), defaults=defaults(RecipeSpec), limits=RECIPE)
    apart = {"preset": {"description": "the settings of a paper's official code, which the other keys change", **presets}}
    schema = settings_schema(RecipeSpec, given, apart)
    schema["properties"]["zip"]["anyOf"][0]["propertyNames"]["enum"].append("preset")
    return schema


def tune_schema() -> Schema:
    """`tune:`, lists of values by key of the recipe, with a budget and a seed."""
    hints, meaning = annotated_fields_of(RecipeSpec), meanings("grid.md", "Tune")
    values = {key: field_schema(key, hints[key], Texts(limits=RECIPE), expands=False) for key in TUNABLE}
    lists = {key: {"type": "array", "items": value, "minItems": 2} for key, value in values.items()}
    apart = {
        BUDGET: {"description": meaning[BUDGET], "type": "integer", "minimum": 2, "maximum": MOST_TRIALS},
        SEED: {"description": meaning[SEED], "type": "integer", "minimum": 0, "maximum": 2**32 - 1},
    }
    return {"anyOf": [{"type": "object", "properties": {**lists, **apart}, "additionalProperties": False}, {"type": "null"}]}


def seeds_schema() -> Schema:
    """`seeds:`, a list, or a number of seeds."""
    seed: Schema = {"type": "integer", "minimum": 0, "maximum": 2**32 - 1}
    listed: Schema = {"type": "array", "items": seed, "minItems": 1, "uniqueItems": True}
    return {"anyOf": [{"type": "integer", "minimum": 1, "maximum": MOST_SEEDS}, listed]}


def exclude_schema() -> Schema:
    """`exclude:`, a list of patterns. The values of fields, and of entries that have other fields, are the launcher's to check."""
    axes = ("model", "pruning", "data", "recipe", "seed")
    known = {"data": fields_of(DataSpec), "recipe": fields_of(RecipeSpec)}
    parts: dict[str, Schema] = {}
    for axis in axes:
        mapping: Schema = {"type": "object"}
        if axis in known:
            mapping["propertyNames"] = {"enum": list(known[axis])}
        names = {"type": ["string", "number", "array"]} if axis in NAME_KEYS or axis == "seed" else {"type": "array", "items": mapping}
        parts[axis] = {"anyOf": [names, mapping]}
    pattern: Schema = {"type": "object", "minProperties": 1, "properties": parts, "additionalProperties": False}
    return {"anyOf": [{"type": "array", "items": pattern}, {"type": "null"}]}
