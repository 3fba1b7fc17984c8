"""A cell: one point of a grid, with the id that its settings decide."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobs.experiment.identity import canonical, cell_id, data_identity, method_identity, model_identity, plain, recipe_identity
from jobs.experiment.specs import DataSpec, ModelSpec, RecipeSpec
from jobs.experiment.typed import build
from models.pruning.base import PruningMethod
from models.pruning.registry import METHODS, method_label
from models.registry import effective_options, model_config
from models.text import valid_names


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One point of a grid. `id` is the hash of what decides its result."""

    id: str
    model: ModelSpec
    method: PruningMethod
    data: DataSpec
    recipe: RecipeSpec
    seed: int
    label: str | None = None  # the pruning's, where the user gave one

    @property
    def pruning(self) -> str:
        """The name of the method and its knobs that a leaderboard shows."""
        return self.label or method_label(self.method)

    def to_json(self) -> dict[str, Any]:
        """Everything needed to run the cell again, with all fields, as plain JSON values."""
        options = plain(model_config(self.model.name, self.model.options))
        return {
            "model": {"name": self.model.name, "label": self.model.label, "options": options},
            "pruning": {"method": self.method.name, "label": self.label, "knobs": plain(self.method)},
            "data": plain(self.data),
            "recipe": plain(self.recipe),
            "seed": self.seed,
        }

    @classmethod
    def from_json(cls, spec: Mapping[str, Any]) -> "Cell":
        """The cell that `to_json` gave; its id is computed anew.

        KeyError: a part is missing; ValueError: a field, model or method that this version does not have.
        """
        given, pruning = spec["model"], spec["pruning"]
        if pruning["method"] not in METHODS:
            raise ValueError(f"unknown method {pruning['method']!r}{valid_names(pruning['method'], METHODS)}")
        model = ModelSpec(name=given["name"], label=given["label"], options=effective_options(given["name"], given["options"]))
        method = build(METHODS[pruning["method"]], pruning["knobs"])
        data, recipe = build(DataSpec, spec["data"]), build(RecipeSpec, spec["recipe"])
        parts = (model_identity(model), method_identity(method), data_identity(data), recipe_identity(recipe))
        named = cell_id(*map(canonical, parts), spec["seed"])
        return cls(id=named, model=model, method=method, data=data, recipe=recipe, seed=spec["seed"], label=pruning["label"])
