"""A cell is written down and comes back with its id."""

import json
from dataclasses import replace

import pytest

from jobs.experiment.cell import Cell
from jobs.experiment.specs import RecipeSpec
from models.pruning.magnitude import Magnitude
from tests.support.cells import DIFFERENT, make_cell


@pytest.mark.parametrize("cell", DIFFERENT, ids=str)
def test_a_cell_comes_back_from_its_json_with_its_id(cell: Cell) -> None:
    stored = json.loads(json.dumps(cell.to_json()))
    assert stored == cell.to_json()
    back = Cell.from_json(stored)
    assert back.id == cell.id and back.method == cell.method and back.data == cell.data and back.recipe == cell.recipe


def test_json_has_every_field_those_at_their_default_too() -> None:
    stored = make_cell(method=Magnitude(sparsity=0.5)).to_json()
    assert stored["recipe"]["weight_decay"] == 0.05 and stored["data"]["crop_scale"] == [0.08, 1.0]
    assert stored["pruning"]["knobs"]["scope"] == "global" and stored["model"]["options"]["depth"] == 4


def test_a_field_of_another_version_is_refused_by_name() -> None:
    stored = make_cell().to_json()
    stored["recipe"]["lookahead"] = 5
    with pytest.raises(ValueError, match="RecipeSpec.lookahead: unknown field"):
        Cell.from_json(stored)


def test_a_method_of_another_version_is_refused_by_name() -> None:
    stored = make_cell().to_json()
    stored["pruning"]["method"] = "magnitud"
    with pytest.raises(ValueError, match="unknown method 'magnitud'; did you mean 'magnitude'"):
        Cell.from_json(stored)


def test_a_value_of_another_type_is_refused_by_name() -> None:
    stored = make_cell().to_json()
    stored["recipe"]["epochs"] = "twelve"
    with pytest.raises(ValueError, match="RecipeSpec.epochs: expected a whole number, got text 'twelve'"):
        Cell.from_json(stored)


def test_a_pruning_is_called_by_the_users_label_or_by_its_method_and_knobs() -> None:
    cell = make_cell(method=Magnitude(sparsity=0.5))
    assert cell.pruning == "magnitude(0.5)" and replace(cell, label="half").pruning == "half"


def test_a_cell_that_an_older_protocol_trained_comes_back_as_one_of_this_protocol() -> None:
    cell = make_cell(recipe=RecipeSpec(dtype="bf16"))
    stored = json.loads(json.dumps(cell.to_json()))
    del stored["recipe"]["protocol"]
    assert Cell.from_json(stored).id == cell.id
