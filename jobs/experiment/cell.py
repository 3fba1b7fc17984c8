"""A cell: one point of a grid, with the id that its settings decide."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NotRequired, TypedDict

from jobs.experiment.identity import (
    PROTOCOL,
    canonical,
    cell_id,
    data_identity,
    method_identity,
    model_identity,
    plain,
    recipe_identity,
    training_protocol,
)
from jobs.experiment.ids import CellId
from jobs.experiment.plugins import PluginJson, check_plugins, plugin_json, without_plugin
from jobs.experiment.specs import DataSpec, ModelSpec, RecipeSpec
from jobs.experiment.tuning import TuneSpec
from models.pruning.base import PruningMethod
from models.pruning.chain import Chain
from models.pruning.registry import METHODS, method_label
from models.registry import effective_options, recorded_options
from models.text import valid_names
from models.typed import build


class ModelJson(PluginJson):
    """A model in a cell's JSON form."""

    name: str
    label: str
    options: dict[str, Any]
    pretrained_sha256: NotRequired[str]  # if the options name a file; version 0.1 had no digest


class PruningJson(PluginJson):
    """A pruning method in a cell's JSON form."""

    method: str
    label: str | None
    knobs: dict[str, Any]  # of a chain: {"methods": [{"method": ..., "knobs": ...}, ...], "split": [...]}


class CellJson(TypedDict):
    """Everything that is needed to run a cell again, as JSON values. Fields at their default are there too."""

    model: ModelJson
    pruning: PruningJson
    data: dict[str, Any]
    recipe: dict[str, Any]  # of a tuned cell with the first value of each tuned key
    seed: int
    tune: NotRequired[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One point of a grid. `id` is the hash of the settings that decide its result."""

    id: CellId
    model: ModelSpec
    method: PruningMethod
    data: DataSpec
    recipe: RecipeSpec
    seed: int
    label: str | None = None  # of the pruning, if the user gave one
    tune: TuneSpec | None = None  # `recipe` then has the first value of each tuned key

    @property
    def pruning(self) -> str:
        """The pruning as a leaderboard shows it: the user's label, or the method with its knobs."""
        return self.label or method_label(self.method)

    @property
    def recipes(self) -> tuple[RecipeSpec, ...]:
        """The recipes that its stages may train with: its own, or one for each point of the space that it tries."""
        return self.tune.recipes(self.recipe) if self.tune else (self.recipe,)

    def untuned(self) -> tuple["Cell", ...]:
        """A cell for each of its recipes, as if it were alone; itself if it is not tuned. Their ids are its own."""
        return tuple(replace(self, recipe=recipe, tune=None) for recipe in self.recipes) if self.tune else (self,)

    def to_json(self) -> CellJson:
        """The cell as a record's `spec` and plan.json hold it."""
        options = plain(recorded_options(self.model.name, self.model.options))
        model = ModelJson(name=self.model.name, label=self.model.label, options=options)
        if self.model.pretrained_sha256 is not None:
            model["pretrained_sha256"] = self.model.pretrained_sha256
        pruning = PruningJson(method=self.method.name, label=self.label, knobs=knobs_to_json(self.method))
        spec: CellJson = {
            "model": {**model, **plugin_json("model", self.model.name)},
            "pruning": {**pruning, **plugin_json("pruning", self.method.name)},
            "data": plain(self.data) | plugin_json("data", self.data.source),
            "recipe": plain(self.recipe) | training_protocol(self.recipe),
            "seed": self.seed,
        }
        if self.tune:
            spec["tune"] = self.tune.to_json()
        return spec

    @classmethod
    def from_json(cls, spec: Mapping[str, Any]) -> "Cell":
        """The cell that `to_json` wrote down, perhaps in another version; its id is computed anew.

        Raises KeyError if a part is missing, ValueError for a field, value, model or method that this version does not have, and for a plug-in that
        is not loaded.
        """
        given, pruning = spec["model"], spec["pruning"]
        check_plugins(spec)
        options = effective_options(given["name"], given["options"])
        model = ModelSpec(name=given["name"], label=given["label"], options=options, pretrained_sha256=given.get("pretrained_sha256"))
        method = method_from_json(pruning)
        settings = {name: value for name, value in spec["recipe"].items() if name != PROTOCOL}  # this version's takes its place
        data, recipe, seed = build(DataSpec, without_plugin(spec["data"])), build(RecipeSpec, settings), spec["seed"]
        model_text, method_text = canonical(model_identity(model)), canonical(method_identity(method))
        tune = TuneSpec.from_json(spec["tune"]) if spec.get("tune") else None
        tune_text = canonical(tune.to_json()) if tune else ""
        named = cell_id(model_text, method_text, canonical(data_identity(data)), canonical(recipe_identity(recipe)), seed, tune_text)
        return cls(id=named, model=model, method=method, data=data, recipe=recipe, seed=seed, label=pruning["label"], tune=tune)


def knobs_to_json(method: PruningMethod) -> dict[str, Any]:
    """All knobs of a method; of a chain its methods, each with its knobs, and the parts of the fine-tuning."""
    if isinstance(method, Chain):
        methods = [{"method": link.name, "knobs": knobs_to_json(link), **plugin_json("pruning", link.name)} for link in method.methods]
        return {"methods": methods, "split": list(method.proportions)}
    knobs: dict[str, Any] = plain(method)
    return knobs


def method_from_json(pruning: Mapping[str, Any]) -> PruningMethod:
    """The method of a cell's JSON form. Raises ValueError for a method or a knob that this version does not have."""
    name, knobs = pruning["method"], pruning["knobs"]
    if name == Chain.name:
        return Chain(methods=tuple(map(method_from_json, knobs["methods"])), split=tuple(knobs["split"]))
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}{valid_names(name, METHODS)}")
    return build(METHODS[name], knobs)
