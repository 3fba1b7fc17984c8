"""A space of recipe values, and the points of it that every cell tries."""

import dataclasses
import itertools
from typing import Any

import pytest

from jobs.experiment.cell import Cell
from jobs.experiment.specs import RecipeSpec
from jobs.experiment.tuning import FIXED, TUNABLE, TuneSpec
from tests.support.cells import make_cell

SPACE: dict[str, tuple[Any, ...]] = {"weight_decay": (0.0, 0.05, 0.1), "finetune_lr": (None, 1e-3, 2e-3), "betas": ((0.9, 0.999), (0.9, 0.95))}


def tune(budget: int = 18, seed: int = 0, **space: tuple[Any, ...]) -> TuneSpec:
    return TuneSpec(space=space or SPACE, budget=budget, seed=seed)


def tuned_cell(spec: TuneSpec) -> Cell:
    return Cell.from_json({**make_cell().to_json(), "recipe": make_cell(recipe=spec.base(RecipeSpec())).to_json()["recipe"], "tune": spec.to_json()})


def test_a_whole_space_is_its_product_in_the_sequence_of_the_recipe() -> None:
    keys = ("finetune_lr", "weight_decay", "betas")
    product = [dict(zip(keys, point, strict=True)) for point in itertools.product(*(SPACE[key] for key in keys))]
    assert list(tune().trials) == product and tune().points == 18


def test_the_sequence_of_keys_in_the_grid_does_not_matter() -> None:
    backwards = dict(reversed(SPACE.items()))
    assert TuneSpec(space=backwards, budget=5).trials == tune(5).trials


@pytest.mark.parametrize("budget", range(1, 18))
def test_a_smaller_budget_takes_some_points_and_a_larger_one_keeps_them(budget: int) -> None:
    fewer, more, whole = tune(budget).trials, tune(budget + 1).trials, list(tune().trials)
    assert len(fewer) == budget and all(point in more for point in fewer)
    assert [whole.index(point) for point in fewer] == sorted(whole.index(point) for point in fewer)


def test_every_point_can_be_drawn_and_seeds_draw_others() -> None:
    draws = [tune(1, seed).trials[0] for seed in range(200)]
    assert all(point in draws for point in tune().trials)


def test_the_draw_is_the_same_in_every_version() -> None:
    assert TuneSpec(space={"lr": (1e-3, 2e-3, 4e-3)}, budget=2).trials == ({"lr": 1e-3}, {"lr": 4e-3})


def test_a_cell_is_read_as_it_was_written() -> None:
    spec = tune(4, 3)
    cell = tuned_cell(spec)
    assert cell.tune == spec and Cell.from_json(cell.to_json()) == cell
    assert [recipe.betas for recipe in cell.recipes] == [values["betas"] for values in spec.trials]


def test_space_budget_and_seed_enter_the_id_and_without_them_it_stays() -> None:
    cells = [
        make_cell(),
        *map(tuned_cell, (tune(4), tune(5), tune(4, 1), tune(4, lr=(1e-3, 2e-3, 3e-3, 4e-3)), tune(4, lr=(4e-3, 3e-3, 2e-3, 1e-3)))),
    ]
    assert len({cell.id for cell in cells}) == len(cells)
    assert "tune" not in make_cell().to_json()


def test_what_the_recipe_had_for_a_tuned_key_decides_nothing() -> None:
    assert tune().base(RecipeSpec(weight_decay=0.3, lr=1.0)) == tune().base(RecipeSpec(weight_decay=0.4, lr=1.0))


def test_a_key_that_cannot_be_tuned_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="wieght_decay cannot be tuned; did you mean 'weight_decay'"):
        tune(2, wieght_decay=(1, 2))


def test_every_key_of_a_recipe_can_be_tuned_or_has_its_reason() -> None:
    assert {*TUNABLE, *FIXED} == {field.name for field in dataclasses.fields(RecipeSpec)}
