"""The settings that decide a result, as text, and the ids made from that text.

An id is the first 12 hexadecimal digits of the SHA-256 of canonical JSON (sorted keys, no spaces, floats as Python writes them). Fields at their
default are left out, so that a new field keeps old ids. Labels, the cluster, and the paths of a data set that has a name decide nothing, and are
left out too. A pretrained file, and a plug-in, enter with the digest of their content.
"""

import dataclasses
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from typing import Any

from jobs.experiment.ids import CellId, StageId
from jobs.experiment.plugins import plugin_identity, without_plugin_names
from jobs.experiment.specs import DataSpec, ModelSpec, RecipeSpec
from models.pruning.base import PruningMethod, Stage
from models.pruning.chain import Chain
from models.pruning.knobs import is_trunk
from models.registry import effective_options
from models.typed import fields_of, item_types, members

ID_DIGITS = 12
PROTOCOL = "protocol"  # of the training, beside the fields of a recipe
# The fields that versions up to 0.2 had. Fields that came later are at their default in the records of these versions, which do not hold them.
OF_0_2: Mapping[str, tuple[type, frozenset[str]]] = {
    "data": (
        DataSpec,
        frozenset(
            "source path test_path name img_size val_fraction split_seed samples classes loader augment shift_px crop_scale flip eval_crop write_mode"
            " max_resolution".split()
        ),
    ),
    "recipe": (
        RecipeSpec,
        frozenset(
            "epochs finetune_epochs batch_size micro_batch_size optimizer lr finetune_lr min_lr warmup_epochs weight_decay decay_ssm betas momentum"
            " label_smoothing clip_grad ema dtype zero_stage scan".split()
        ),
    ),
}
PATHS = ("path", "test_path", "test_labels")  # of data: where files lie does not say which images they hold


def digest(text: str) -> str:
    """The id that a canonical text gives."""
    return hashlib.sha256(text.encode()).hexdigest()[:ID_DIGITS]


def canonical(value: Any) -> str:
    """JSON that is the same for equal values. Raises ValueError for NaN and infinity, which no setting can be."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def plain(value: Any, hint: Any = Any) -> Any:
    """A setting as JSON values, with all fields: dataclasses as mappings, tuples as lists, 1 as 1.0 in a field of type float."""
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
        return [plain(item, inner) for item, inner in zip(value, item_types(hint, len(value)), strict=True)]
    raise TypeError(f"no setting can be a {type(value).__name__}: {value!r}")


def changed(spec: Any) -> dict[str, Any]:
    """The fields of a dataclass that are not at their default, nested dataclasses likewise, as JSON values."""
    hints = fields_of(type(spec))
    fields = {}
    for field in dataclasses.fields(spec):
        value = getattr(spec, field.name)
        if field.init and value != _default(field):
            fields[field.name] = changed(value) if dataclasses.is_dataclass(value) else plain(value, hints[field.name])
    return fields


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def model_identity(model: ModelSpec) -> dict[str, Any]:
    """The model's name and the options that differ from its row of `models.registry.MODELS`; of a pretrained file the content, not the path.

    Version 0.1 had the path there. A cell of its records, which have no digest, keeps that id.
    """
    options = effective_options(model.name, model.options)
    if model.pretrained_sha256 is not None:
        options["pretrained"] = f"sha256:{model.pretrained_sha256[:ID_DIGITS]}"
    return {"name": model.name, "options": options} | plugin_identity("model", model.name)


def method_identity(method: PruningMethod) -> dict[str, Any]:
    """The method's name and the knobs that are not at their default; of a chain the identities of its methods."""
    if isinstance(method, Chain):
        split = {"split": list(method.proportions)} if method.proportions else {}
        return {"name": method.name, "methods": [method_identity(link) for link in method.methods], **split}
    return {"name": method.name, "knobs": changed(method)} | plugin_identity("pruning", method.name)


def data_identity(data: DataSpec) -> dict[str, Any]:
    """The fields that are not at their default. A name stands for the paths; without a name, the paths alone tell two sets apart."""
    fields = {key: value for key, value in changed(data).items() if data.name is None or key not in PATHS}
    return fields | plugin_identity("data", data.source)


def recipe_identity(recipe: RecipeSpec) -> dict[str, Any]:
    """The fields that are not at their default, with the training protocol; of a teacher's file the content, not the path."""
    fields, distill = changed(recipe), recipe.distill
    if distill is not None and distill.teacher_sha256 is not None:
        fields["distill"] = _without(fields["distill"], ("teacher_sha256",)) | {"teacher": f"sha256:{distill.teacher_sha256[:ID_DIGITS]}"}
    return fields | training_protocol(recipe)


def training_protocol(recipe: RecipeSpec) -> dict[str, str]:
    """What a recipe's words mean in this version, where a version before understood something else; empty where nothing has changed.

    Versions up to 0.2 kept BatchNorm's statistics and the sums of gradients in bf16, so their results in bf16 are others. They keep their ids, and
    their records do not have this field, so that no row mixes the two.
    """
    return {PROTOCOL: "fp32 statistics and sums"} if recipe.dtype == "bf16" else {}


def result_settings(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a cell's JSON form that decides its result: all fields, but no label, no path of data, and no path of weights with a digest.

    Two cells of one id may differ here: they ran under versions with other defaults. A record has the digest of its data in place of the paths.
    """
    ignored: dict[str, tuple[str, ...]] = {"model": ("label",), "pruning": ("label",), "data": PATHS}
    unnamed = without_plugin_names(spec)
    settings = {part: _without(without_newer_defaults(part, fields), ignored.get(part, ())) for part, fields in unnamed.items()}
    if "recipe" in settings:
        settings["recipe"] = _recipe_settings(settings["recipe"])
    return settings | {"model": _model_settings(settings["model"])} if "model" in settings else settings


def without_newer_defaults(part: str, fields: Any) -> Any:
    """Data or a recipe in JSON form without the fields at their default that versions up to 0.2 did not have: their records mean the same."""
    if part not in OF_0_2 or not isinstance(fields, Mapping):
        return fields
    spec, known = OF_0_2[part]
    defaults = _plain_defaults(spec)
    return {name: value for name, value in fields.items() if name in known or name not in defaults or value != defaults[name]}


@cache
def _plain_defaults(spec: type) -> dict[str, Any]:
    defaults: dict[str, Any] = plain(spec())
    return defaults


def _model_settings(model: Any) -> Any:
    """A model in JSON form without the path of a file whose digest is there, and without options that are null: versions before had fewer options."""
    if not isinstance(model, Mapping) or not isinstance(model.get("options"), Mapping):
        return model
    ignored = ("pretrained",) if model.get("pretrained_sha256") else ()
    return {**model, "options": {name: value for name, value in model["options"].items() if value is not None and name not in ignored}}


def _recipe_settings(recipe: Any) -> Any:
    """A recipe in JSON form without the path of a teacher's file whose digest is there."""
    distill = recipe.get("distill") if isinstance(recipe, Mapping) else None
    known = isinstance(distill, Mapping) and distill.get("teacher_sha256")
    return {**recipe, "distill": _without(distill, ("teacher",))} if known else recipe


def _without(fields: Any, names: Collection[str]) -> Any:
    return {name: value for name, value in fields.items() if name not in names} if isinstance(fields, Mapping) else fields


def stage_recipe(recipe: RecipeSpec, stage: Stage) -> RecipeSpec:
    """The recipe of one stage, equal for all cells that share it: the stage's own epochs, a fine-tuning rate only if it fine-tunes, and a teacher
    only if it is not the dense training.
    """
    rate = recipe.finetune_lr if stage.schedule == "finetune" else None
    distill = None if is_trunk(stage) else recipe.distill
    return dataclasses.replace(recipe, epochs=stage.epochs, finetune_epochs=0, finetune_lr=rate, distill=distill)


def stage_recipe_identity(recipe: RecipeSpec, stage: Stage) -> dict[str, Any]:
    """The fields that are not at their default and decide a stage. How long it trains is a field of the stage itself."""
    elsewhere = (
        {"epochs", "finetune_epochs"} | ({"finetune_lr"} if stage.schedule == "train" else set()) | ({"distill"} if is_trunk(stage) else set())
    )
    return {key: value for key, value in recipe_identity(recipe).items() if key not in elsewhere}


def stage_identity(stage: Stage) -> dict[str, Any]:
    """The fields that are not at their default, with the identity of the method that acts. The weights that it keeps on the way decide nothing."""
    fields = changed(dataclasses.replace(stage, method=None, keep_steps=()))
    return fields if stage.method is None else fields | {"method": method_identity(stage.method)}


def cell_id(model: str, method: str, data: str, recipe: str, seed: int, tune: str = "") -> CellId:
    """The id of a cell from the canonical texts of its parts. `tune`: empty for a cell that is not tuned."""
    tuned = f',"tune":{tune}' if tune else ""
    return CellId(digest(f'{{"data":{data},"method":{method},"model":{model},"recipe":{recipe},"seed":{seed}{tuned}}}'))


def choice_id(trials: Iterable[StageId]) -> StageId:
    """The id of the stage that chooses among trials, given as their last stages."""
    return StageId(digest(canonical({"choose": list(trials)})))


def stage_id(
    model: str, data: str, recipe: str, seed: int, stage: str, parent: StageId | None, rewind: StageId | None, teacher: StageId | None = None
) -> StageId:
    """The id of a stage from the canonical texts of its parts and the ids of the stages that it needs."""
    before = f'"parent":{canonical(parent)},"recipe":{recipe},"rewind":{canonical(rewind)}'
    taught = "" if teacher is None else f',"teacher":{canonical(teacher)}'
    return StageId(digest(f'{{"data":{data},"model":{model},{before},"seed":{seed},"stage":{stage}{taught}}}'))
