"""A structure comes back from JSON as it was."""

import json

import pytest

from models.pruning.structure import Structure
from models.pruning.structure_json import structure_from_json, structure_of, structure_to_json
from models.token_merging import Merging


@pytest.mark.parametrize(
    "structure",
    [
        Structure(kept={"a.heads": [0, 2]}, counts={"a.heads": 4}, notes=("a note",)),
        Structure(kept={}, counts={"layers.1": 1}, blocks=("layers.1",), scans=("layers.0.mixer",)),
        Structure(kept={}, counts={}, merging=Merging(tokens={2: (5, 9)}, score="cosine", mode="merge")),
        None,
    ],
)
def test_a_structure_comes_back_from_json_as_it_was(structure: Structure | None) -> None:
    assert structure_from_json(json.loads(json.dumps(structure_to_json(structure)))) == structure


def test_what_is_no_structure_is_an_error() -> None:
    with pytest.raises(KeyError):
        structure_of({"counts": {}})
