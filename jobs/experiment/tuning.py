"""What a grid's `tune:` says: a space of recipe values, and the points of it that every cell tries. No torch."""

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from jobs.experiment.identity import canonical, plain
from jobs.experiment.specs import RecipeSpec
from jobs.experiment.trials import Values
from models.text import valid_names
from models.typed import fields_of

# Not to be tuned: how long a cell trains, and how its numbers are computed and compared.
FIXED: Final[Mapping[str, str]] = {
    "epochs": "every cell gets the same epochs",
    "finetune_epochs": "every cell gets the same epochs",
    "batch_size": "rows of a table share their batch",
    "micro_batch_size": "it says how a batch is computed, not how a network is trained",
    "zero_stage": "it says how a network is computed, not how it is trained",
    "scan": "it says how a network is computed, not how it is trained",
    "dtype": "rows of a table share their dtype",
    "distill": "it is a mapping; give several recipes",
}
TUNABLE: Final = tuple(name for name in fields_of(RecipeSpec) if name not in FIXED)
BUDGET, SEED = "budget", "seed"  # keys of `tune:` beside those of a recipe


@dataclass(frozen=True, kw_only=True)
class TuneSpec:
    """A space of recipe values, and how many of its points each cell tries. It decides a result, so it enters a cell's id."""

    space: Mapping[str, tuple[Any, ...]]  # by key of the recipe; keys stand in the recipe's sequence
    budget: int  # trials of each cell
    seed: int = 0  # of the draw, where the space has more points than the budget

    def __post_init__(self) -> None:
        strangers = [key for key in self.space if key not in TUNABLE]
        if strangers:
            raise ValueError(f"{strangers[0]} cannot be tuned{valid_names(strangers[0], TUNABLE)}")
        object.__setattr__(self, "space", {key: tuple(self.space[key]) for key in TUNABLE if key in self.space})

    @property
    def points(self) -> int:
        """The number of points of the space."""
        return math.prod(map(len, self.space.values()))

    @cached_property
    def trials(self) -> tuple[Values, ...]:
        """The points to try, the last key varying fastest: the same for every cell.

        A budget below the number of points takes those whose SHA-256, with the seed, is smallest. So a draw of eight holds the draw of four.
        """
        every = [dict(zip(self.space, point, strict=True)) for point in itertools.product(*self.space.values())]
        drawn = sorted(range(len(every)), key=lambda number: self._draw(every[number]))[: self.budget]
        return tuple(every[number] for number in sorted(drawn))

    def _draw(self, point: Values) -> str:
        return hashlib.sha256(canonical({"seed": self.seed, "values": plain(point)}).encode()).hexdigest()

    def recipes(self, recipe: RecipeSpec) -> tuple[RecipeSpec, ...]:
        """The recipe of each trial."""
        return tuple(dataclasses.replace(recipe, **values) for values in self.trials)

    def base(self, recipe: RecipeSpec) -> RecipeSpec:
        """The recipe as a tuned cell holds it: with the first value of every tuned key, so that a value that no trial uses decides no id."""
        return dataclasses.replace(recipe, **{key: values[0] for key, values in self.space.items()})

    def to_json(self) -> dict[str, Any]:
        """As a cell's JSON form, and the text of its id, hold it."""
        hints = fields_of(RecipeSpec)
        space = {key: [plain(value, hints[key]) for value in values] for key, values in self.space.items()}
        return {"space": space, BUDGET: self.budget, SEED: self.seed}

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> "TuneSpec":
        """What `to_json` wrote down. Raises KeyError, ValueError."""
        space = {key: tuple(tuple(value) if isinstance(value, list) else value for value in values) for key, values in given["space"].items()}
        return cls(space=space, budget=given[BUDGET], seed=given[SEED])
