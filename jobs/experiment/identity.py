"""What decides a result, as text, and the ids made from it.

An id is the first 12 hexadecimal digits of the SHA-256 of canonical JSON (sorted keys, no spaces, floats as Python writes them). Fields at their
default are left out, so that a new field keeps old ids; so is what decides nothing: labels, the cluster, the paths of a data set that has a name.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from jobs.experiment.specs import DataSpec, ModelSpec, RecipeSpec
from jobs.experiment.typed import fields_of, members
from models.pruning.base import PruningMethod, Stage
from models.registry import effective_options

ID_DIGITS = 12


def digest(text: str) -> str:
    """The id of a canonical text."""
    return hashlib.sha256(text.encode()).hexdigest()[:ID_DIGITS]


def canonical(value: Any) -> str:
    """JSON that is the same for equal values. ValueError: NaN or infinity, which no setting can be."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def plain(value: Any, hint: Any = Any) -> Any:
    """JSON's form of a setting, with all fields: dataclasses as mappings, tuples as lists, 1 as 1.0 where the field is a float."""
    if value is None or type(value) in (str, bool):  # most values, and ten thousand cells have half a million
        return value
    if type(value) in (int, float):
        whole = type(value) is int and (float not in members(hint) or int in members(hint))
        return value if whole else value + 0.0  # 1 becomes 1.0, -0.0 becomes 0.0
    if dataclasses.is_dataclass(value):
        return {name: plain(getattr(value, name), inner) for name, inner in fields_of(type(value)).items()}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, inner) for item, inner in zip(value, _inner(hint, len(value)))]
    raise TypeError(f"no setting can be a {type(value).__name__}: {value!r}")


def _inner(hint: Any, count: int) -> list[Any]:
    """The types of a list's items."""
    for member in members(hint):
        inner = getattr(member, "__args__", ())
        if inner:
            return [inner[0]] * count if len(inner) == 1 or inner[-1] is Ellipsis else list(inner)
    return [Any] * count


def changed(spec: Any) -> dict[str, Any]:
    """The fields of a dataclass that are not at their default, nested ones too, as JSON values."""
    hints = fields_of(type(spec))
    found = {}
    for field in dataclasses.fields(spec):
        value = getattr(spec, field.name)
        if not field.init or value == _default(field):
            continue
        whole = dataclasses.is_dataclass(value)
        found[field.name] = changed(value) if whole else plain(value, hints[field.name])
    return found


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def model_identity(model: ModelSpec) -> dict[str, Any]:
    """The row's name and what differs from it."""
    return {"name": model.name, "options": effective_options(model.name, model.options)}


def method_identity(method: PruningMethod) -> dict[str, Any]:
    """The method's name and the knobs that are not at their default."""
    return {"name": method.name, "knobs": changed(method)}


def data_identity(data: DataSpec) -> dict[str, Any]:
    """What differs from the default; a name stands for the paths."""
    found = changed(data)
    return {key: value for key, value in found.items() if data.name is None or key not in ("path", "test_path")}


def recipe_identity(recipe: RecipeSpec) -> dict[str, Any]:
    """What differs from the default."""
    return changed(recipe)


def stage_recipe(recipe: RecipeSpec, stage: Stage) -> RecipeSpec:
    """The recipe as a stage is given it, equal for all cells that share the stage: its own epochs, and no fine-tuning rate unless it fine-tunes."""
    rate = recipe.finetune_lr if stage.schedule == "finetune" else None
    return dataclasses.replace(recipe, epochs=stage.epochs, finetune_epochs=0, finetune_lr=rate)


def stage_recipe_identity(recipe: RecipeSpec, schedule: str) -> dict[str, Any]:
    """What differs from the default and decides a stage; how long it trains stands in the stage itself."""
    elsewhere = ("epochs", "finetune_epochs") if schedule == "finetune" else ("epochs", "finetune_epochs", "finetune_lr")
    return {key: value for key, value in changed(recipe).items() if key not in elsewhere}


def stage_identity(stage: Stage) -> dict[str, Any]:
    """What differs from the default, the acting method by name; which weights are kept on the way decides nothing."""
    method = stage.method
    found = changed(dataclasses.replace(stage, method=None, keep_steps=()))
    return found if method is None else found | {"method": method_identity(method)}


def cell_id(model: str, method: str, data: str, recipe: str, seed: int) -> str:
    """The id of a cell from the canonical texts of its parts."""
    return digest(f'{{"data":{data},"method":{method},"model":{model},"recipe":{recipe},"seed":{seed}}}')


def stage_id(model: str, data: str, recipe: str, seed: int, stage: str, parent: str | None, rewind: str | None) -> str:
    """The id of a stage from the canonical texts of its parts and the ids that it builds on."""
    before = f'"parent":{canonical(parent)},"recipe":{recipe},"rewind":{canonical(rewind)}'
    return digest(f'{{"data":{data},"model":{model},{before},"seed":{seed},"stage":{stage}}}')
